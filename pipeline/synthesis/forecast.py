"""`decouple --dry-run`: the pairs, and the time and yield to expect, measured on a few of them."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from catalogs.candidates.held_out import hash_number
from catalogs.corpus.commit import create_corpus
from catalogs.durations import duration_text
from catalogs.words import counted
from pipeline.runtime.devices import pick_device
from pipeline.synthesis.decouple import DecoupleJob, decouple, expected_s, open_job, settle_pairs
from pipeline.synthesis.made import Made, made_so_far
from pipeline.synthesis.pairs import Pair, write_pairs
from pipeline.synthesis.settings import DecoupleSettings


@dataclass
class DecoupleForecast:
    """What a run would do. Seconds of speech are estimated from the texts; times are scaled from those of the trial.

    `accepted`: (expected, low, high) of the pairs, 95 % interval by Wilson's score of the trial; None without a trial.
    """

    pairs: int = 0
    already: int = 0
    languages: dict[str, int] = field(default_factory=dict)
    unpaired: dict[str, int] = field(default_factory=dict)
    speech_s: float = 0.0
    trial_pairs: int = 0
    trial_accepted: int = 0
    trial_attempts: int = 0
    device: str = ""
    """Device of the model in the trial: cpu or cuda."""
    wall_s: float | None = None
    """Expected seconds in one process, without the loading of the models."""
    generate_s: float | None = None
    """Expected seconds of the model alone, on the device of the trial."""
    accepted: tuple[float, float, float] | None = None
    disk_bytes: float | None = None


def forecast_decouple(
    corpus: str | Path,
    model: str | Path,
    out: str | Path | None = None,
    settings: DecoupleSettings | None = None,
    limit: int | None = None,
    trial: int = 8,
) -> DecoupleForecast:
    """Return what `decouple` would do. The trial makes `trial` pairs in a temporary folder, which is removed.

    Nothing is written to the corpora. With `trial` 0 the time and the yield stay open.
    """
    job = open_job(corpus, model, out, settings)
    pairing = settle_pairs(job.source, job.root, job.settings, limit, write=False)
    pairs = [pair for pair in pairing.pairs if pair.reason is None]
    made = made_so_far(job.root) if (job.root / "corpus.json").is_file() else Made()
    todo = [pair for found in made.left(pairs, job.settings.attempts).values() for pair in found]
    unpaired = Counter(pair.reason for pair in pairing.pairs if pair.reason is not None) + Counter(pairing.left_out)
    found = DecoupleForecast(
        pairs=len(todo),
        already=len(pairs) - len(todo),
        languages=dict(Counter(pair.language for pair in todo).most_common()),
        unpaired=dict(unpaired.most_common()),
        speech_s=sum(map(expected_s, todo)),
    )
    chosen = sorted(todo, key=lambda pair: hash_number("trial", pair.pair_id))[:trial]
    if chosen:
        _try(found, job, chosen)
    return found


def _try(found: DecoupleForecast, job: DecoupleJob, chosen: Sequence[Pair]) -> None:
    """Make a few pairs in this process, and scale what they took to all pairs."""
    settings = job.settings
    with tempfile.TemporaryDirectory(prefix="voxmill-decouple-") as folder:
        root = Path(folder) / "trial"
        create_corpus(root)
        write_pairs(root, chosen)
        here = settings.engine.model_copy(update={"executor": "inline"})
        none = settings.pairing.model_copy(update={"where": "false", "held_out": 0.0})
        alone = settings.model_copy(update={"engine": here, "unit": len(chosen), "pairing": none})
        summary = decouple(job.source, settings.generate.model, root, alone)
        # The catalog and the copies of rows do not grow with the clips.
        kept = [path for name in ("segments", "annotations") for path in (root / name).rglob("*") if path.is_file()]
        written = sum(path.stat().st_size for path in kept)
        made = made_so_far(root)
    scale = found.speech_s / max(sum(map(expected_s, chosen)), 1e-9)
    found.trial_pairs, found.trial_accepted = len(chosen), summary.accepted
    found.trial_attempts = sum(made.attempts[pair.pair_id] for pair in chosen)
    found.device = pick_device(settings.generate.device)
    found.generate_s, found.wall_s = summary.generate_s * scale, summary.process_s * scale
    found.disk_bytes = written * scale
    low, high = wilson(summary.accepted, len(chosen))
    found.accepted = (found.pairs * summary.accepted / len(chosen), found.pairs * low, found.pairs * high)


def wilson(hits: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of `of` by Wilson's score."""
    from scipy.stats import binomtest

    interval = binomtest(hits, of).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def forecast_lines(found: DecoupleForecast, settings: DecoupleSettings) -> list[str]:
    """Return a forecast as lines for a terminal."""
    languages = ", ".join(f"{code} {count}" for code, count in found.languages.items())
    lines = [
        f"{counted(found.pairs, 'pair')} to make{f' ({languages})' if languages else ''}, about"
        f" {duration_text(found.speech_s)} of speech; {found.already} done before"
    ]
    if found.unpaired:
        lines.append("no pair: " + ", ".join(f"{reason} {count}" for reason, count in found.unpaired.items()))
    if found.accepted is None:
        lines.append("time and yield are not known: give --trial, the number of pairs to make for the forecast")
        return lines
    expected, low, high = found.accepted
    lines.append(
        f"trial: {found.trial_accepted} of {counted(found.trial_pairs, 'pair')} accepted in"
        f" {counted(found.trial_attempts, 'attempt')} (at most {settings.attempts} each)"
    )
    lines.append(f"expected: {expected:.0f} accepted (95 %: {low:.0f} to {high:.0f})")
    hours = (found.generate_s or 0.0) / 3600
    model = (
        f"{hours:.2g} GPU hours" if found.device == "cuda" else f"{duration_text(found.generate_s or 0.0)} on the CPU"
    )
    lines.append(
        f"in one process like that of the trial: {duration_text(found.wall_s or 0.0)}, of which the model {model}; disk:"
        f" {(found.disk_bytes or 0.0) / 1e6:.0f} MB"
    )
    if found.trial_pairs < 8:
        lines.append("a trial of more pairs tells more: --trial 8")
    return lines
