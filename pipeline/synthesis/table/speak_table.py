"""`speak --table`: speak all rows of a table over the engine, resumably, into one folder of audio and a table."""

from __future__ import annotations

import logging
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from catalogs.corpus.commit import UnitContent
from catalogs.corpus.ids import short_hash
from catalogs.corpus.locks import only_run, own_scratch, sweep_scratch
from catalogs.durations import duration_text
from catalogs.files import make_folder
from catalogs.words import counted
from pipeline.engine.api import ContentLost, Event, GroupDone, ItemStarted, SessionDone, UnitWritten
from pipeline.engine.progress import Progress
from pipeline.runs.engines import make_engine
from pipeline.runs.errors import PrepareError, stopping_in_one_line
from pipeline.runtime.failures import Breaker
from pipeline.synthesis.identity import find_model
from pipeline.synthesis.requests import speech_recordings
from pipeline.synthesis.table.folder import (
    PARTS,
    TABLE_FILE,
    about_job,
    bind_folder,
    committed_parts,
    count_result,
    merge_parts,
    write_part,
)
from pipeline.synthesis.table.rows import Job, Unit, open_job
from pipeline.synthesis.table.settings import SpeakTableSettings, load_speak_settings
from pipeline.synthesis.table.speak_rows import RowsOutput, RowsSession

log = logging.getLogger(__name__)

Watch = Callable[[Event, Progress], None]


@dataclass
class SpeakTableSummary:
    """What the folder holds, and what this run did."""

    out: str
    table: str = ""
    """The table of the results."""
    rows: int = 0
    spoken: int = 0
    seconds: float = 0.0
    unended: int = 0
    """Spoken rows that the model did not end by itself in any attempt; see the column `ending`."""
    retried: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    """Rows without audio, by the code of their error."""
    model: str = ""
    run_rows: int = 0
    """Rows that this run committed."""
    run_seconds: float = 0.0
    generate_s: float = 0.0
    wall_s: float = 0.0


def speak_table(
    table: str | Path,
    model: str | Path,
    out: str | Path,
    voices: str | Path | None = None,
    descriptions: str | Path | None = None,
    settings: SpeakTableSettings | None = None,
    watch: Watch = lambda event, progress: None,
) -> SpeakTableSummary:
    """Do what `voxmill speak --table` does; return its summary. Run again after a kill, it resumes.

    voices: a table of voices or a pattern of clips. descriptions: a text file or a table. All texts are crossed with them. Raises
    PrepareError, SpeechTableError and FileNotFoundError, each with one line.
    """
    settings = settings or load_speak_settings()
    started = time.perf_counter()
    folder, digest = find_model(model, settings.generate.lora)
    job = open_job(table, voices, descriptions, settings.seed, settings.unit)
    settings = settings.with_model(folder).fitted(folder)
    root = Path(out).absolute()
    if settings.watermark:
        from voxcpm.watermark.registry import remember

        remember(digest, folder.name)
    summary = SpeakTableSummary(str(out), str(Path(out) / TABLE_FILE), model=digest)
    with stopping_in_one_line(root):
        if root.exists() and not root.is_dir():
            raise PrepareError(f"{root} is a file: with --table, -o is a folder")
        root.mkdir(parents=True, exist_ok=True)
        with only_run(root):
            bind_folder(root, about_job(job, digest, settings.of_the_audio()))
            sweep_scratch(root / "tmp")
            if not (root / TABLE_FILE).is_file():
                _speak_rest(job, root, settings, digest, summary, watch)
            merge_parts(root, job)
            shutil.rmtree(root / "strikes", ignore_errors=True)
            with suppress(OSError):
                # Not if another process writes there.
                (root / "tmp").rmdir()
    for key, value in asdict(count_result(root, job)).items():
        setattr(summary, key, value)
    summary.wall_s = time.perf_counter() - started
    for line in summary_lines(summary):
        log.info(line)
    return summary


def _speak_rest(
    job: Job, root: Path, settings: SpeakTableSettings, digest: str, summary: SpeakTableSummary, watch: Watch
) -> None:
    """Speak and commit the units that are not committed."""
    done = committed_parts(root)
    if done:
        log.info(f"{len(done)} of {counted(job.units, 'unit')} were committed before")
    left = job.units - len(done & set(range(job.units)))
    if left:
        # The folders' names are on the disk before what is in them.
        make_folder(root / "audio")
        make_folder(root / PARTS)
        expected_s = job.survey.speech_s * job.folds * left / job.units
        units = job.read_units(done)
        for unit, record in speak_units(units, Progress(left, expected_s), root, settings, digest, summary, watch):
            write_part(root, job, unit, record, digest)
            summary.run_rows += len(unit.lines)


def speak_units(
    units: Iterator[Unit],
    progress: Progress,
    root: Path,
    settings: SpeakTableSettings,
    digest: str,
    summary: SpeakTableSummary,
    watch: Watch = lambda event, progress: None,
) -> Iterator[tuple[Unit, dict[str, Any]]]:
    """Speak units; yield each with the record of its files (see `RowsOutput.write`) when these are on the disk."""
    with own_scratch(root / "tmp") as scratch:
        at_work: dict[str, tuple[Unit, float]] = {}
        done_s: dict[str, float] = {}
        engine = make_engine(settings.engine, settings.groups(), root, scratch / "marks", RowsOutput(root))

        def sessions() -> Iterator[RowsSession]:
            for unit in units:
                session = _session(unit, digest, scratch / "spool")
                at_work[session.session_id] = unit, sum(recording.duration_s for recording in session.recordings)
                yield session

        breaker = Breaker()
        try:
            for event in engine.run(sessions()):
                if isinstance(event, GroupDone):
                    progress.stage_done(event.outcome)
                    breaker.add(event.outcome.tallies)
                elif isinstance(event, ItemStarted):
                    progress.item_started(event)
                elif isinstance(event, SessionDone):
                    assert isinstance(event.session, RowsSession)
                    summary.generate_s += event.session.generate_s
                    name = event.session.session_id
                    done_s[name] = sum(recording.duration_s for recording in event.session.usable())
                    progress.session_done(done_s[name], 0.0, 0.0, at_work[name][1])
                    engine.write(_content(event.session))
                elif isinstance(event, ContentLost):
                    for name in event.session_ids:
                        progress.session_lost(done_s[name], 0.0, 0.0, at_work[name][1])
                elif isinstance(event, UnitWritten):
                    unit, _ = at_work.pop(event.record["unit_id"])
                    done_s.pop(event.record["unit_id"], None)
                    summary.run_seconds += sum(row["seconds"] for row in event.record["spoken"].values())
                    yield unit, event.record
                    continue
                watch(event, progress)
        finally:
            engine.close()


def _session(unit: Unit, digest: str, spool: Path) -> RowsSession:
    requests = {line.name: line.request for line in unit.lines if line.request is not None}
    session_id = f"rows-{unit.number:07d}"
    fingerprint = short_hash("speak", digest)
    recordings = speech_recordings(requests, session_id, "rows")
    folder = str(spool / session_id)
    return RowsSession(session_id, fingerprint, folder, recordings, requests=requests, checkpoint=digest)


def _content(session: RowsSession) -> UnitContent:
    return UnitContent(session.session_id, session.fingerprint, [session.session_id], (), ())


def summary_lines(summary: SpeakTableSummary) -> list[str]:
    """Return a few lines on what the run did and what the folder holds."""
    lines = []
    if summary.run_rows:
        rate = summary.run_seconds / summary.wall_s if summary.wall_s else 0.0
        lines.append(
            f"{counted(summary.run_rows, 'row')} in {duration_text(summary.wall_s)}: {duration_text(summary.run_seconds)} of speech"
            f" ({rate:.2f}x real time)"
        )
    lines.append(
        f"{summary.spoken} of {counted(summary.rows, 'row')} spoken, {duration_text(summary.seconds)} of speech"
    )
    if summary.failed:
        lines.append("failed: " + ", ".join(f"{code} {count}" for code, count in summary.failed.items()))
    if summary.unended:
        lines.append(f"cut by a limit in every attempt: {counted(summary.unended, 'row')} (see the column ending)")
    where = shlex.quote(summary.table)
    lines.append(
        f"{where}: all rows with their columns, in the order of the table; audio is relative to {shlex.quote(summary.out)}"
    )
    return lines
