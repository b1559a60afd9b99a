"""What a run will cost and give, from a few minutes of the recordings: `voxmill prepare --dry-run`.

Excerpts are drawn over all recordings by their share of the time, in strata of folder and format, and go through the
real stages in this process. Nothing is written to the corpus.
"""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from catalogs.commit import committed_sources
from pipeline.audio_file import AudioFileError, probe, stream_mono
from pipeline.config import _PrepareConfig
from pipeline.containers import fetch, is_location
from pipeline.engine.base import Worker
from pipeline.engine.pools import size_pools
from pipeline.plan import promised_seconds
from pipeline.records import Recording, Session, Source
from pipeline.rows import segment_rows
from pipeline.run import known_hashes
from pipeline.sources import FoundSources, HashKey, find_sources

EXCERPT_S = 40.0
_LONGEST_SKIP_S = 1800.0
"""Excerpts come from the first half hour of a file that can only be read from its beginning."""
_ROW_BYTES = 6_000
"""A segment's row without its audio: words, embedding, scores, and its share of the indexes."""
_RAY_START_S = 7.0
_BUSY_SHARE = 0.93
"""Of the cores' time, what the stages get of it once all of them have work."""
_RESAMPLED = 2000
_INTERVAL = (10.0, 90.0)
_T90 = {1: 3.078, 2: 1.886, 3: 1.638, 4: 1.533, 5: 1.476}
"""The 90 % point of Student's t, by degrees of freedom; beyond these it is near enough to 1.282 + 1.1 / degrees."""


@dataclass(frozen=True)
class Estimate:
    """A forecast with the interval in which it should lie four times out of five."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Forecast:
    """What a run over everything that is not committed yet would come to. Seconds and bytes."""

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
    """CPU seconds each stage would take."""


class _NotHashed(dict[HashKey, str]):
    """Takes a file's name, size and date for its content: a forecast must not read a petabyte."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: HashKey) -> str:
        return hashlib.sha256(repr(key).encode()).hexdigest()


def list_recordings(paths: Sequence[str], root: Path, config: _PrepareConfig) -> FoundSources:
    """The sources as a run would find them. Files are read for their hash only where a corpus must be compared with."""
    hashes: dict[HashKey, str] = _NotHashed()
    if (root / "corpus.json").is_file():
        hashes = known_hashes(root)
    return find_sources(paths, session=config.sources.session, language=config.sources.language, hashes=hashes)


@dataclass
class _Excerpt:
    """What became of one excerpt."""

    audio_s: float
    cpu_s: dict[str, float] = field(default_factory=dict)
    busy_s: dict[str, float] = field(default_factory=dict)
    kept_s: float = 0.0
    segments: int = 0
    bytes: int = 0


def forecast(
    found: FoundSources,
    root: Path,
    config: _PrepareConfig,
    sample_s: float = 240.0,
    seed: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> Forecast:
    """Run the stages over about `sample_s` seconds of what is not in the corpus `root` yet, and scale up.

    Raises ValueError where there is nothing to do or no readable recording among what there is.
    """
    done = committed_sources(root) if (root / "corpus.json").is_file() else set()
    waiting = [source for source in found.sources if source.source_id not in done]
    if not waiting:
        raise ValueError("nothing to forecast: all of these recordings are in the corpus already")
    with ThreadPoolExecutor(8) as pool:
        seconds = list(pool.map(promised_seconds, waiting))
    readable = [(source, length) for source, length in zip(waiting, seconds, strict=True) if length > 0]
    if not readable:
        raise ValueError(f"none of the {len(waiting)} recordings can be read")
    total = sum(length for _, length in readable)
    dice = random.Random(seed)
    places = draw_places(readable, sample_s, dice)
    with tempfile.TemporaryDirectory(prefix="voxmill-forecast-") as scratch:
        started = time.perf_counter()
        workers = [Worker(group.stages, scratch) for group in config.groups()]
        for worker in workers:
            worker.load()
        load_s = time.perf_counter() - started
        excerpts = []
        for number, (source, start) in enumerate(places, start=1):
            path = Path(scratch) / f"{number}.wav"
            title = f"  excerpt {number} of {len(places)}: {source.relative_path} at {start / 60:.1f} min"
            if (length := _cut(source, start, path, Path(scratch))) > 0.5:
                excerpts.append(_run(workers, source, path, length, config, Path(scratch) / f"spool{number}"))
                say(title)
            else:
                # As in the real run: it costs next to nothing and gives nothing.
                excerpts.append(_Excerpt(EXCERPT_S))
                say(f"{title}: cannot be decoded")
            path.unlink(missing_ok=True)
    if not any(excerpt.cpu_s for excerpt in excerpts):
        raise ValueError("no excerpt of these recordings could be decoded")
    return _scale(excerpts, total, len(waiting), len(waiting) - len(readable) + len(found.refused), load_s, config)


def draw_places(
    recordings: Sequence[tuple[Source, float]], sample_s: float, dice: random.Random
) -> list[tuple[Source, float]]:
    """(recording, start in seconds) of excerpts. Each stratum (folder, ending) gets its share of the seconds by largest
    remainder; within it the starts are spread evenly over its recordings laid end to end, at a random phase."""
    strata: dict[tuple[str, str], list[tuple[Source, float]]] = defaultdict(list)
    for source, length in recordings:
        name = Path(source.relative_path)
        strata[(name.parts[0] if len(name.parts) > 1 else "", name.suffix.lower())].append((source, length))
    total = sum(length for _, length in recordings)
    count = max(3, round(min(sample_s, total) / EXCERPT_S))
    shares = {key: count * sum(length for _, length in items) / total for key, items in strata.items()}
    given = {key: int(share) for key, share in shares.items()}
    for key in sorted(shares, key=lambda k: (given[k] - shares[k], k))[: count - sum(given.values())]:
        given[key] += 1
    places = []
    for key in sorted(strata):
        items = sorted(strata[key], key=lambda item: dice.random())
        length = sum(seconds for _, seconds in items)
        phase = dice.random()
        for index in range(given[key]):
            at = (index + phase) * length / given[key]
            for source, seconds in items:
                if at < seconds:
                    # An excerpt may not reach over the end, or the ends would be heard too seldom.
                    places.append((source, max(0.0, min(at, seconds - EXCERPT_S))))
                    break
                at -= seconds
    return places


def _cut(source: Source, start: float, path: Path, scratch: Path) -> float:
    """Write one excerpt at its native rate; its length in seconds, 0 where it cannot be read."""
    import soundfile

    try:
        file = str(fetch(source.path, scratch)) if is_location(source.path) else source.path
        info = probe(file)
        rate = info.sample_rate
        wanted = round(EXCERPT_S * rate)
        if info.reader == "soundfile":
            with soundfile.SoundFile(file) as sound:
                sound.seek(min(round(start * rate), max(0, sound.frames - wanted)))
                audio = sound.read(wanted, dtype="float32", always_2d=True).mean(axis=1)
        else:
            skip = round(min(start, _LONGEST_SKIP_S) * rate)
            parts, have = [], 0
            for chunk in stream_mono(file, info):
                have += len(chunk)
                parts.append(chunk)
                if have >= skip + wanted:
                    break
            audio = np.concatenate(parts or [np.zeros(0, np.float32)])[skip : skip + wanted] if have > skip else None
        if audio is None or not len(audio):
            return 0.0
        soundfile.write(path, np.clip(audio, -1.0, 1.0), rate, subtype="PCM_16")
    except (AudioFileError, OSError, RuntimeError):
        return 0.0
    return len(audio) / rate


def _run(
    workers: list[Worker], source: Source, path: Path, length: float, config: _PrepareConfig, spool: Path
) -> _Excerpt:
    excerpt = _Excerpt(length)
    part = Source(
        source.source_id, str(path), source.relative_path, source.session_id, path.stat().st_size, "",
        language=source.language, license=source.license,
    )  # fmt: skip
    session = Session(source.session_id, "forecast", str(spool), [Recording(part)])
    for worker in workers:
        session, outcome = worker.run(session, marked=False)
        excerpt.cpu_s |= outcome.cpu_s
        excerpt.busy_s |= outcome.busy_s
    rows = segment_rows(session, config.thresholds)
    excerpt.segments = len(rows)
    excerpt.kept_s = sum(row["duration_s"] for row in rows if row["kept"])
    excerpt.bytes = sum(len(segment.flac) for segment in session.segments if segment.flac)
    return excerpt


def _scale(
    excerpts: list[_Excerpt], total: float, recordings: int, unreadable: int, load_s: float, config: _PrepareConfig
) -> Forecast:
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
    cores = 1 if inline else len(os.sched_getaffinity(0))
    start = load_s if inline else _RAY_START_S + load_s / cores
    if inline:
        slowest = [sum(excerpt.busy_s.values()) for excerpt in excerpts]
        wall = estimate(slowest, lambda busy: start + busy)
    else:
        # Either the cores are full, or one group of stages has too few actors and all others wait for it.
        limits = [[sum(excerpt.cpu_s.values()) / (cores * _BUSY_SHARE) for excerpt in excerpts]]
        for group in size_pools(config.groups(), cores, 0.0):
            names = [stage.name for stage in group.stages]
            limits.append([sum(excerpt.busy_s.get(name, 0.0) for name in names) / group.actors for excerpt in excerpts])
        wall = estimate(max(limits, key=sum), lambda busy: start + busy)
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
    )
