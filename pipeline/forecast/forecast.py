"""Forecast the cost and the yield of a run from a few minutes of the recordings: `voxmill prepare --dry-run`.

Excerpts (`sample.py`) are drawn over all recordings by their share of the time, in strata of folder and format, and go
through the real stages (`trials.py`). Nothing is written to the corpus.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from catalogs.compaction.records import history_of
from catalogs.durations import duration_text
from pipeline.config import PrepareConfig
from pipeline.engine.pools import size_pools
from pipeline.forecast.sample import draw_excerpts
from pipeline.forecast.trials import ExcerptResult, run_trials
from pipeline.inputs.find import FoundSources, HashKey, all_sources
from pipeline.inputs.hashes import KeptHashes
from pipeline.inputs.members import HashTable
from pipeline.runs.errors import no_cluster
from pipeline.runs.journal import retry_rule
from pipeline.runs.plan import estimated_seconds, plan_units, promised_seconds, unit_seconds
from pipeline.runs.sources import by_session, listed
from pipeline.runtime.devices import count_gpus

log = logging.getLogger(__name__)

_ROW_BYTES = 6_000
"""Bytes of a segment's row without its audio: words, embedding, scores, and its share of the indexes."""
_RAY_START_S = 7.0
_BUSY_SHARE = 0.93
"""Share of the cores' time that the stages use once all of them have work."""
_LEAST_S, _MOST_S = 120.0, 480.0
"""Minimum and maximum seconds of the default sample. The cost and the yield of recordings differ by half: six excerpts of
15 recordings were off by up to a quarter, and twelve take less than a minute on two cores."""
_RESAMPLED = 2000
_INTERVAL = (10.0, 90.0)
_T90 = {1: 3.078, 2: 1.886, 3: 1.638, 4: 1.533, 5: 1.476}
"""The 90 % point of Student's t, by degrees of freedom; beyond these, 1.282 + 1.1 / degrees is close enough."""


@dataclass(frozen=True)
class Estimate:
    """A forecast with the interval in which the true value should lie four times out of five."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Forecast:
    """The forecast of a run over everything that is not committed yet, in seconds and bytes."""

    recordings: int
    unreadable: int
    audio_s: float
    sampled_s: float
    excerpts: int
    wall_s: Estimate
    kept_s: Estimate
    segments: Estimate
    disk_bytes: Estimate
    load_s: float
    stage_cpu_s: dict[str, float]
    """CPU seconds that each stage would take."""
    rejected: dict[str, float]
    """Per reason, the share of all segments' seconds that it applies to (several may apply to one segment), largest first."""
    cpus: float
    gpus: float
    """CPUs and GPUs of the run: this machine's, or those of the cluster that it would join."""
    notes: list[str]
    """What the figures leave out."""
    units: int = 0
    unit_s: float = 0.0
    """Units that are committed one by one, and the seconds from which on one is full (setting `unit_s`)."""


class _NotHashed(dict[HashKey, str]):
    """Uses a file's name, size and date instead of its content: a forecast must not read a petabyte."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: HashKey) -> str:
        return hashlib.sha256(repr(key).encode()).hexdigest()


def list_recordings(paths: Sequence[str], root: Path, config: PrepareConfig) -> FoundSources:
    """Return the sources as a run would find them. Files are read for their hash only if there is a corpus to compare with."""
    hashes: HashTable = _NotHashed()
    if (root / "corpus.json").is_file():
        hashes = KeptHashes(root, keep=False)
    return all_sources(listed(paths, config, hashes))


def forecast(
    found: FoundSources,
    root: Path,
    config: PrepareConfig,
    sample_s: float | None = None,
    seed: int = 1,
    redo: bool = False,
    unit_s: float | None = None,
) -> Forecast:
    """Run the stages over about `sample_s` seconds of the recordings that are not in the corpus `root` yet, and scale up.
    None: a third of them, at least two minutes and at most eight. With `redo`, over everything that was found.
    `unit_s`: as `units_of` returns it (default), before a share was taken of what was found.

    Raises ValueError if there is nothing to do or no recording is readable.
    """
    done = history_of(root).done(retry_rule(config)) if (root / "corpus.json").is_file() and not redo else set()
    waiting = [source for source in found.sources if source.source_id not in done]
    if not waiting:
        raise ValueError("nothing to forecast: all of these recordings are in the corpus already")
    with ThreadPoolExecutor(8) as pool:
        seconds = list(pool.map(promised_seconds, waiting))
    readable = [(source, length) for source, length in zip(waiting, seconds, strict=True) if length > 0]
    if not readable:
        raise ValueError(f"none of the {len(waiting)} recordings can be read")
    machine = machine_of(config)
    lengths = {source.source_id: length for source, length in readable}
    total = sum(lengths.values())
    dice = random.Random(seed)
    sample_s = sample_s or min(_MOST_S, max(_LEAST_S, total / 3))
    drawn = draw_excerpts(readable, sample_s, dice)
    log.info(f"running the stages over {duration_text(min(sample_s, total))} of them")
    excerpts = []
    with tempfile.TemporaryDirectory(prefix="voxmill-forecast-") as scratch:
        for pieces, trial in zip(drawn, run_trials(config, drawn, lengths, Path(scratch)), strict=True):
            excerpts.append(trial)
            title = f"  excerpt {len(excerpts)} of {len(drawn)}: {pieces[0].source.relative_path}"
            title += f" and {len(pieces) - 1} more" if len(pieces) > 1 else ""
            log.info(title if trial.cpu_s else f"{title}: cannot be decoded")
    load_s = max(trial.load_s for trial in excerpts)
    if not any(excerpt.cpu_s for excerpt in excerpts):
        raise ValueError("no excerpt of these recordings could be decoded")
    unreadable = len(waiting) - len(readable) + len(found.refused)
    sources = [source for source, _ in readable]
    unit_s = unit_s or units_of(found, config)
    members = [(name, part, [lengths[s.source_id] for s in part]) for name, part in by_session(sources)]
    units = list(plan_units(members, (), "", unit_s, config.sources.session_s))
    longest = max(session.seconds for unit in units for session in unit.sessions)
    result = _scale(excerpts, total, longest, len(waiting), unreadable, load_s, config, machine)
    return replace(result, units=len(units), unit_s=unit_s)


def units_of(found: FoundSources, config: PrepareConfig) -> float:
    """Return the seconds of a unit in a run over these sources (setting `unit_s`)."""
    return unit_seconds(config.unit_s, estimated_seconds((source.path, source.bytes) for source in found.sources))


def machine_of(config: PrepareConfig) -> tuple[float, float]:
    """Return (CPUs, GPUs) of a run: this machine's, or those of the Ray cluster that it would join.

    Raises PrepareError if that cluster does not exist.
    """
    address = config.engine.address or os.environ.get("RAY_ADDRESS")
    if config.engine.executor == "ray" and address:
        from pipeline.engine.ray_node import cluster_resources

        try:
            return cluster_resources(address)
        except ConnectionError as error:
            raise no_cluster(address, error) from None
    return float(len(os.sched_getaffinity(0))), float(count_gpus()) if config.engine.gpus else 0.0


def _scale(
    excerpts: list[ExcerptResult],
    total: float,
    longest_session: float,
    recordings: int,
    unreadable: int,
    load_s: float,
    config: PrepareConfig,
    machine: tuple[float, float],
) -> Forecast:
    cpus, gpus = machine
    dice = np.random.default_rng(1)
    draws = dice.integers(len(excerpts), size=(_RESAMPLED, len(excerpts)))
    audio = np.array([excerpt.audio_s for excerpt in excerpts])

    def estimate(values: Sequence[float], finish: Callable[[float], float] = lambda amount: amount) -> Estimate:
        column = np.array(values, dtype=np.float64)
        middle = float(column.sum() / audio.sum())
        again = np.percentile(column[draws].sum(axis=1) / audio[draws].sum(axis=1), _INTERVAL)
        # Few excerpts vary less than the recordings do: Student's t instead of the normal distribution, n - 1 instead of n.
        n = len(excerpts)
        wider = _T90.get(n - 1, 1.282 + 1.1 / (n - 1)) / 1.282 * (n / (n - 1)) ** 0.5
        low, high = (finish(max(0.0, middle + (float(rate) - middle) * wider) * total) for rate in again)
        return Estimate(finish(middle * total), low, high)

    inline = config.engine.executor == "inline"
    start = load_s if inline else _RAY_START_S + load_s / cpus
    if inline:
        slowest = [sum(excerpt.busy_s.values()) for excerpt in excerpts]
        wall = estimate(slowest, lambda busy: start + busy)
    else:
        # Either the cores are full, or one group of stages has too few actors and all others wait for it, or the longest
        # session is still in progress when everything else is done: it goes from stage to stage, and no two stages process
        # it at once.
        limits = [[sum(excerpt.cpu_s.values()) / (cpus * _BUSY_SHARE) for excerpt in excerpts]]
        for group in size_pools(config.groups(), cpus, gpus):
            names = [stage.name for stage in group.stages]
            limits.append([sum(excerpt.busy_s.get(name, 0.0) for name in names) / group.actors for excerpt in excerpts])
        limits.append([sum(excerpt.busy_s.values()) * longest_session / total for excerpt in excerpts])
        wall = estimate(max(limits, key=sum), lambda busy: start + busy)
    segments_s = sum(excerpt.segments_s for excerpt in excerpts)
    rejected_s = sum((excerpt.rejected_s for excerpt in excerpts), Counter())
    stages = {name for excerpt in excerpts for name in excerpt.cpu_s}
    return Forecast(
        recordings=recordings,
        unreadable=unreadable,
        audio_s=total,
        sampled_s=float(audio.sum()),
        excerpts=len(excerpts),
        wall_s=wall,
        kept_s=estimate([excerpt.kept_s for excerpt in excerpts]),
        segments=estimate([excerpt.segments for excerpt in excerpts]),
        disk_bytes=estimate([excerpt.bytes + excerpt.segments * _ROW_BYTES for excerpt in excerpts]),
        load_s=load_s,
        stage_cpu_s={
            name: sum(excerpt.cpu_s.get(name, 0.0) for excerpt in excerpts) / float(audio.sum()) * total
            for name in sorted(stages)
        },
        rejected={reason: seconds / segments_s for reason, seconds in rejected_s.most_common()},
        cpus=cpus,
        gpus=gpus,
        notes=_notes(config),
    )


def _notes(config: PrepareConfig) -> list[str]:
    notes = []
    if config.engine.executor == "ray" and config.engine.address:
        notes.append("the time is that of the cluster's CPUs and GPUs, were they as fast as this machine's")
    if config.engine.gpus and not count_gpus():
        shares = ", ".join(config.engine.gpus)
        notes.append(
            f"this machine has no GPU: the stages for one ({shares}) were timed on the CPU, and take less time on a GPU"
        )
    priced = {"none": "no descriptions are asked for", "acoustic": "descriptions are made here and cost nothing"}
    notes.append(priced.get(config.describe, f"descriptions by {config.describe} are not priced"))
    return notes
