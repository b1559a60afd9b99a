"""`prepare`: from sources to committed units, with what was done and what was not accounted for to the second."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from catalogs.commit import (
    CorpusError,
    UnitContent,
    adopt_fingerprint,
    commit_unit,
    committed_sources,
    create_corpus,
    quarantine_now,
    sweep_tmp,
    write_atomically,
)
from catalogs.models import WeightsMissing, resolve
from catalogs.settings import dump_settings
from pipeline.audio_file import probe_seconds
from pipeline.config import _PrepareConfig
from pipeline.engine.base import DiskFullError, Engine, Outcome
from pipeline.engine.inline import InlineEngine
from pipeline.plan import PlannedUnit, plan_units
from pipeline.records import Quarantined, Session, Source
from pipeline.rows import quarantine_rows, recording_rows, reference_rows, segment_rows
from pipeline.sources import FoundSources, HashKey, find_sources
from pipeline.stage import LoadError


class PrepareError(RuntimeError):
    """A run that cannot start or go on; the message is one line that says what to do."""


class Watcher(Protocol):
    """What sees a run's progress: the terminal's progress bar, or nothing."""

    def say(self, line: str) -> None:
        """One line for a person."""

    def planned(self, sessions: int, audio_s: float) -> None:
        """So much is to be done."""

    def stage_done(self, group: str, outcome: Outcome) -> None:
        """A group of stages has finished with a session."""

    def session_done(self, session: Session) -> None:
        """A session came out of the last stage."""


@dataclass
class Summary:
    """What one run did. Seconds of audio; `stage_s` are busy seconds of the stages, added over their actors."""

    corpus: str
    sources: int = 0
    already_there: int = 0
    ignored_files: int = 0
    sessions: int = 0
    units: int = 0
    audio_s: float = 0.0
    segments: int = 0
    kept: int = 0
    kept_s: float = 0.0
    rejected: dict[str, int] = field(default_factory=dict)
    """Segments by each of their reasons (a segment may have several)."""
    quarantined: list[dict[str, str]] = field(default_factory=list)
    stage_s: dict[str, float] = field(default_factory=dict)
    wall_s: float = 0.0
    fingerprint: str = ""
    notices: list[str] = field(default_factory=list)


def prepare(
    paths: Sequence[str],
    out: str | Path,
    config: _PrepareConfig,
    watcher: Watcher,
    redo: bool = False,
) -> Summary:
    """Process what is not committed yet of `paths` into the corpus `out`.

    Raises PrepareError (nothing to do, another run at work, a model missing, disk full). A file that cannot be
    processed never raises: it is in the corpus' quarantine, with its reason.
    """
    started = time.perf_counter()
    root = Path(out)
    fingerprint = config.fingerprint()
    _check_weights(config.weights())
    try:
        create_corpus(root, name=config.name)
    except CorpusError as error:
        raise PrepareError(str(error)) from None
    with _only_run(root):
        adopt_fingerprint(root, fingerprint, redo)
        sweep_tmp(root)
        (root / "prepare.yaml").write_text(dump_settings(config), encoding="utf-8")
        found = _find(root, paths, config, watcher)
        sources, refused = found.sources, found.refused
        for row in refused:
            quarantine_now(root, asdict(row))
        if not sources and not refused:
            raise PrepareError(
                f"no recordings in {', '.join(paths)}: give a folder, a file, a glob or a manifest of audio"
            )
        committed = committed_sources(root)
        seconds = {source.source_id: probe_seconds(source.path) for source in sources}
        units = plan_units(sources, committed, fingerprint, config.unit_s, lambda source: seconds[source.source_id])
        summary = Summary(str(root), len(sources) + len(refused), fingerprint=fingerprint)
        summary.ignored_files = found.ignored
        summary.already_there = sum(source.source_id in committed for source in sources)
        summary.quarantined = [_refusal(row) for row in refused]
        _announce(watcher, summary, units, sources)
        if units:
            _process(root, units, config, summary, watcher)
        summary.wall_s = time.perf_counter() - started
        summary.notices = list(dict.fromkeys(summary.notices))
        (root / "run.json").write_text(json.dumps(asdict(summary), indent=1), encoding="utf-8")
        shutil.rmtree(root / "tmp", ignore_errors=True)
    return summary


def _find(root: Path, paths: Sequence[str], config: _PrepareConfig, watcher: Watcher) -> FoundSources:
    """The sources; files that have not changed since the last run are not read again for their hash."""
    known = root / "hashes.json"
    hashes: dict[HashKey, str] = {}
    if known.is_file():
        rows = json.loads(known.read_text(encoding="utf-8"))
        hashes = {(path, size, changed): sha256 for path, size, changed, sha256 in rows}
    before = len(hashes)
    found = find_sources(paths, session=config.sources.session, language=config.sources.language, hashes=hashes)
    if len(hashes) != before:
        text = json.dumps([[*key, sha256] for key, sha256 in hashes.items()])
        write_atomically(known, text.encode(), scratch=root / "tmp")
    for notice in found.notices:
        watcher.say(notice)
    if found.repeated:
        watcher.say(f"{found.repeated} files were reached more than once and are taken once")
    return found


def _process(root: Path, units: list[PlannedUnit], config: _PrepareConfig, summary: Summary, watcher: Watcher) -> None:
    engine = _engine(config, root)
    unit_of = {session.session_id: unit for unit in units for session in unit.sessions}
    done: dict[str, list[Session]] = {unit.unit_id: [] for unit in units}
    notices: set[str] = set()

    def watch(group: str, outcome: Outcome) -> None:
        for stage, busy in outcome.busy_s.items():
            summary.stage_s[stage] = summary.stage_s.get(stage, 0.0) + busy
        for notice in outcome.notices:
            if notice not in notices:
                notices.add(notice)
                watcher.say(notice)
        watcher.stage_done(group, outcome)

    def finish(session: Session) -> None:
        unit = unit_of[session.session_id]
        done[unit.unit_id].append(session)
        summary.notices += session.notices
        watcher.session_done(session)
        if len(done[unit.unit_id]) == len(unit.sessions):
            _commit(root, unit, done.pop(unit.unit_id), config, summary)

    try:
        engine.run(_starts(units, summary.fingerprint, str(root / "tmp" / "spool")), finish, watch)
    except LoadError as error:
        raise PrepareError(str(error)) from None
    except (DiskFullError, OSError) as error:
        if getattr(error, "errno", None) not in (28, 122):
            raise
        raise PrepareError(
            f"no space left on the disk of {root}: free some and run the same command again; "
            f"{summary.units} of {len(units)} units are committed, nothing is lost"
        ) from None
    finally:
        engine.close()


def _commit(root: Path, unit: PlannedUnit, sessions: list[Session], config: _PrepareConfig, summary: Summary) -> None:
    sessions.sort(key=lambda session: session.session_id)
    rows = [row for session in sessions for row in segment_rows(session, config.thresholds)]
    content = UnitContent(
        unit_id=unit.unit_id,
        fingerprint=summary.fingerprint,
        sessions=[session.session_id for session in sessions],
        rows=rows,
        recordings=[row for session in sessions for row in recording_rows(session)],
        references=[row for session in sessions for row in reference_rows(session)],
        quarantine=[row for session in sessions for row in quarantine_rows(session)],
        stats={"busy_s": _added(session.busy_s for session in sessions)},
    )
    commit_unit(root, content)
    for session in sessions:
        shutil.rmtree(session.spool, ignore_errors=True)
        summary.audio_s += sum(recording.duration_s for recording in session.recordings)
        summary.quarantined += [_refusal(row) for row in session.quarantine]
    reasons = Counter(reason for row in rows for reason in row["reasons"])
    summary.rejected = dict((Counter(summary.rejected) + reasons).most_common())
    summary.units += 1
    summary.sessions += len(sessions)
    summary.segments += len(rows)
    summary.kept += sum(row["kept"] for row in rows)
    summary.kept_s += sum(row["duration_s"] for row in rows if row["kept"])


def _starts(units: list[PlannedUnit], fingerprint: str, spool: str) -> Iterator[Session]:
    for unit in units:
        for session in unit.sessions:
            yield session.start(fingerprint, spool)


def _engine(config: _PrepareConfig, root: Path) -> Engine:
    marks = root / "tmp" / "marks"
    if config.engine.executor == "inline":
        return InlineEngine(config.groups(), marks)
    from pipeline.engine.ray_engine import RayEngine

    try:
        return RayEngine(
            config.groups(), marks.absolute(), root / "strikes", config.engine.address, config.engine.in_flight
        )
    except LoadError as error:
        raise PrepareError(str(error)) from None
    except ConnectionError as error:
        raise PrepareError(f"no Ray cluster at {config.engine.address}: {' '.join(str(error).split())}") from None


def _check_weights(names: Iterable[str]) -> None:
    try:
        for name in names:
            resolve(name)
    except WeightsMissing as error:
        raise PrepareError(str(error)) from None


@contextmanager
def _only_run(root: Path) -> Iterator[None]:
    """Two runs at work on one corpus would sweep each other's files: the second one is told so."""
    with (root / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PrepareError(
                f"another `voxmill prepare` is at work on {root}; wait for it or stop it first"
            ) from None
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _announce(watcher: Watcher, summary: Summary, units: list[PlannedUnit], sources: list[Source]) -> None:
    sessions = sum(len(unit.sessions) for unit in units)
    seconds = sum(unit.seconds for unit in units)
    line = f"{len(sources)} recordings found"
    if summary.already_there:
        line += f", {summary.already_there} of them already in the corpus"
    watcher.say(f"{line}; {sessions} sessions, {seconds / 60:.1f} minutes to do")
    watcher.planned(sessions, seconds)


def _refusal(row: Quarantined) -> dict[str, str]:
    return {"path": row.path, "stage": row.stage, "error": row.error}


def _added(tables: Iterable[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for table in tables:
        for key, value in table.items():
            total[key] = total.get(key, 0.0) + value
    return total
