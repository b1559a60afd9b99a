"""`speak --table --dry-run`: rows, what is wrong with some, seconds of speech, and the time to expect from a trial."""

from __future__ import annotations

import heapq
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from catalogs.candidates.held_out import hash_number
from catalogs.corpus.commit import CorpusError
from catalogs.durations import duration_text
from catalogs.words import counted
from pipeline.engine.progress import Progress
from pipeline.runs.errors import stopping_in_one_line
from pipeline.synthesis.forecast import wilson
from pipeline.synthesis.identity import find_model
from pipeline.synthesis.table.folder import TABLE_FILE, about_job, check_folder, committed_parts
from pipeline.synthesis.table.rows import Job, Line, Unit, open_job
from pipeline.synthesis.table.settings import SpeakTableSettings, load_speak_settings
from pipeline.synthesis.table.speak_table import SpeakTableSummary, speak_units


@dataclass
class SpeakTableForecast:
    """What a run would do. Seconds of speech are estimated from the texts, then corrected by those of the trial.

    `unended`: (expected, low, high) of the rows that no attempt ends, 95 % interval by Wilson's score; None without a trial.
    """

    rows: int = 0
    """Rows of the result: the table's, times voices, times descriptions."""
    already: int = 0
    """Rows that are committed."""
    bad: dict[str, int] = field(default_factory=dict)
    """Rows that cannot be spoken, by the code of their error."""
    speech_s: float = 0.0
    """Seconds of speech that are left to make."""
    trial_rows: int = 0
    trial_speech_s: float = 0.0
    generate_s: float | None = None
    """Expected seconds of the model, in one process on the device of the trial."""
    disk_bytes: float | None = None
    unended: tuple[float, float, float] | None = None


def forecast_table(
    table: str | Path,
    model: str | Path,
    out: str | Path | None = None,
    voices: str | Path | None = None,
    descriptions: str | Path | None = None,
    settings: SpeakTableSettings | None = None,
    trial: int = 8,
) -> SpeakTableForecast:
    """Return what `speak_table` would do. The trial speaks `trial` rows into a temporary folder, which is removed.

    Nothing is written to `out`. With `trial` 0 the time stays open.
    """
    settings = settings or load_speak_settings()
    folder, digest = find_model(model, settings.generate.lora)
    job = open_job(table, voices, descriptions, settings.seed, settings.unit)
    settings = settings.with_model(folder)
    done = _done(job, out, digest, settings)
    found = SpeakTableForecast(rows=job.lines)
    bad: Counter[str] = Counter()
    chosen: list[tuple[float, int, Line]] = []
    for unit in job.read_units():
        for place, line in enumerate(unit.lines, start=unit.number * job.unit):
            if line.error is not None:
                bad[line.error.partition(":")[0]] += 1
            if unit.number in done:
                found.already += 1
            elif line.request is not None:
                found.speech_s += line.request.expected_s
                _choose(chosen, (-hash_number("trial", line.name), place, line), trial)
    found.bad = dict(bad.most_common())
    if chosen:
        _try(found, job, [line for _, _, line in sorted(chosen, key=lambda entry: entry[1])], settings, digest)
    return found


def _done(job: Job, out: str | Path | None, digest: str, settings: SpeakTableSettings) -> set[int]:
    """Return the units that are committed. Raises PrepareError for a folder of another table, model or options."""
    if out is None or not Path(out).exists():
        return set()
    root = Path(out).absolute()
    with stopping_in_one_line(root):
        if not root.is_dir():
            raise CorpusError(f"{root} is a file: with --table, -o is a folder")
        check_folder(root, about_job(job, digest, settings.of_the_audio()))
    return set(range(job.units)) if (root / TABLE_FILE).is_file() else committed_parts(root)


def _choose(chosen: list[tuple[float, int, Line]], entry: tuple[float, int, Line], most: int) -> None:
    """Keep the entries that are highest: the same rows in every forecast."""
    if len(chosen) < most:
        heapq.heappush(chosen, entry)
    elif most:
        heapq.heappushpop(chosen, entry)


def _try(found: SpeakTableForecast, job: Job, lines: list[Line], settings: SpeakTableSettings, digest: str) -> None:
    """Speak a few rows, and scale what they took to all rows."""
    here = settings.engine.model_copy(update={"executor": "inline"})
    summary = SpeakTableSummary("")
    endings: list[str] = []

    def unit() -> Iterator[Unit]:
        rows = [replace(line, row=number) for number, line in enumerate(lines)]
        yield Unit(0, rows, job.table.schema.empty_table())

    with tempfile.TemporaryDirectory(prefix="voxmill-speak-") as folder:
        root = Path(folder)
        alone = settings.model_copy(update={"engine": here})
        with stopping_in_one_line(root):
            for record in speak_units(unit(), Progress(1, 0.0), root, alone, digest, summary):
                endings += [row["ending"] for row in record[1]["spoken"].values()]
        written = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    spoken_s = sum(line.request.expected_s for line in lines if line.request)
    scale = found.speech_s / max(spoken_s, 1e-9)
    found.trial_rows, found.trial_speech_s = len(lines), summary.run_seconds
    found.generate_s, found.disk_bytes = summary.generate_s * scale, written * scale
    found.speech_s = summary.run_seconds * scale
    if endings:
        cut, left = sum(ending != "stop" for ending in endings), found.rows - found.already
        low, high = wilson(cut, len(endings))
        found.unended = (left * cut / len(endings), left * low, left * high)


def forecast_lines(found: SpeakTableForecast) -> list[str]:
    """Return a forecast as lines for a terminal."""
    bad = sum(found.bad.values())
    lines = [
        f"{counted(found.rows, 'row')}, {bad} of them cannot be spoken; {found.already} committed before; about"
        f" {duration_text(found.speech_s)} of speech to make"
    ]
    if found.bad:
        lines.append("cannot be spoken: " + ", ".join(f"{code} {count}" for code, count in found.bad.items()))
    if found.generate_s is None:
        lines.append("the time is not known: give --trial, the number of rows to speak for the forecast")
        return lines
    lines.append(
        f"trial: {counted(found.trial_rows, 'row')}, {duration_text(found.trial_speech_s)} of speech; in one process of this"
        f" machine all rows take {duration_text(found.generate_s)}; disk: {(found.disk_bytes or 0.0) / 1e6:.0f} MB"
    )
    if found.unended is not None:
        expected, low, high = found.unended
        lines.append(f"cut by a limit in every attempt: {expected:.0f} rows (95 %: {low:.0f} to {high:.0f})")
    return lines
