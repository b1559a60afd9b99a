"""`prepare`: from sources to committed units, with what was done and what was not accounted for to the second."""

from __future__ import annotations

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
    create_corpus,
    quarantine_now,
    sweep_tmp,
    write_atomically,
)
from catalogs.history import committed_sources
from catalogs.locks import CorpusBusyError, only_run, own_scratch
from catalogs.models import WeightsMissing, available, resolve
from catalogs.models import weights as weights_of
from catalogs.settings import dump_settings
from catalogs.thresholds import apply_saved, saved_wins
from pipeline.config import _PrepareConfig
from pipeline.disk import is_full_disk
from pipeline.duplicates.mark import mark_duplicates
from pipeline.engine.base import DiskFullError, Engine, EngineError, Outcome
from pipeline.engine.inline import InlineEngine
from pipeline.engine.progress import Progress
from pipeline.engine.strikes import Strikes
from pipeline.fingerprint import settle
from pipeline.hashes import KeptHashes
from pipeline.places import redacted
from pipeline.plan import PlannedUnit, plan_units, promised_lengths
from pipeline.records import Quarantined, Session, Source
from pipeline.rows import quarantine_rows, recording_rows, reference_rows, segment_rows
from pipeline.sources import FoundSources, find_sources
from pipeline.stage import LoadError
from pipeline.stages import stage_class


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

    def progressed(self, progress: Progress) -> None:
        """The state of the run after each of the above, and whenever a stage went on to its next item."""


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
    stage_cpu_s: dict[str, float] = field(default_factory=dict)
    """CPU seconds of the stages: `stage_s` also counts waiting for a core that others use."""
    stage_audio_s: dict[str, float] = field(default_factory=dict)
    """Seconds of audio that each stage was busy with: over `stage_s` it is the stage's speed in times real time."""
    duplicates: dict[str, int] = field(default_factory=dict)
    """Segments of the whole corpus that are marked as a duplicate of another, by kind."""
    separation: dict[str, float] = field(default_factory=dict)
    """Seconds that source separation was tried on (`tried_s`) and is used for (`used_s`), and by how much DNSMOS OVRL rose on
    the mean of what is used (`gain`)."""
    halved: dict[str, int] = field(default_factory=dict)
    """Batch size that stages came down to because they ran out of memory."""
    wall_s: float = 0.0
    process_s: float = 0.0
    """Wall seconds from the engine's start to its end: over `cores`, what `stage_s` leaves of it is overhead."""
    cores: int = 0
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
    # Actors of a cluster have other working folders.
    root = Path(out).expanduser().absolute()
    settled = settle(config, root, redo)
    config, fingerprint = settled.config, settled.fingerprint
    if settled.notice:
        watcher.say(settled.notice)
    check_weights(config.weights())
    with _full_disk_said(root):
        try:
            create_corpus(root, name=config.name)
        except CorpusError as error:
            raise PrepareError(str(error)) from None
        try:
            with only_run(root):
                return _prepare(paths, root, config, watcher, redo, fingerprint)
        except CorpusBusyError as error:
            raise PrepareError(str(error)) from None


def _prepare(
    paths: Sequence[str], root: Path, config: _PrepareConfig, watcher: Watcher, redo: bool, fingerprint: str
) -> Summary:
    started = time.perf_counter()
    adopt_fingerprint(root, fingerprint, redo)
    sweep_tmp(root)
    write_atomically(root / "prepare.yaml", dump_settings(config).encode(), scratch=root / "tmp")
    if line := saved_wins(root, config.thresholds):
        watcher.say(line)
    config = config.model_copy(update={"thresholds": apply_saved(root, config.thresholds)})
    found = _find(root, paths, config, watcher)
    sources, refused = found.sources, found.refused
    for row in refused:
        quarantine_now(root, asdict(row))
    if not sources and not refused:
        raise PrepareError(
            f"no recordings in {redacted(', '.join(paths))}: give a folder, a file, a glob or a manifest of audio"
        )
    committed = committed_sources(root)
    seconds = promised_lengths(sources, committed)
    units = plan_units(
        sources,
        committed,
        fingerprint,
        config.unit_s,
        lambda source: seconds[source.source_id],
        config.sources.session_s,
    )
    summary = Summary(str(root), len(sources) + len(refused), fingerprint=fingerprint)
    summary.ignored_files = found.ignored
    summary.already_there = sum(source.source_id in committed for source in sources)
    summary.quarantined = [_refusal(row) for row in refused]
    _announce(watcher, summary, units, sources)
    if units:
        _process(root, units, config, summary, watcher)
    summary.duplicates = _mark_duplicates(root, config, watcher)
    summary.wall_s = time.perf_counter() - started
    summary.notices = list(dict.fromkeys(summary.notices))
    write_atomically(root / "run.json", json.dumps(asdict(summary), indent=1).encode(), scratch=root / "tmp")
    return summary


def _mark_duplicates(root: Path, config: _PrepareConfig, watcher: Watcher) -> dict[str, int]:
    """Over all that is committed, this run's and earlier ones': a copy may be of an earlier run's segment."""
    try:
        marked = mark_duplicates(root, weights_of(config.speaker_encoder).cosine_threshold or 0.7)
    except OSError as error:
        if not is_full_disk(error):
            raise
        raise _disk_full(error, root, "; all units are committed") from None
    if marked.done and marked.kinds:
        found = ", ".join(f"{count} {kind}" for kind, count in marked.kinds.items())
        watcher.say(f"duplicates marked, none removed: {found}")
    return marked.kinds


def _find(root: Path, paths: Sequence[str], config: _PrepareConfig, watcher: Watcher) -> FoundSources:
    """The sources; files that have not changed since the last run are not read again for their hash."""
    hashes = KeptHashes(root)
    found = find_sources(
        paths,
        session=config.sources.session,
        language=config.sources.language,
        hashes=hashes,
        stores=config.stores(),
        say=watcher.say,
    )
    hashes.settle()
    for notice in found.notices:
        watcher.say(notice)
    if line := found.passed_over():
        watcher.say(line)
    if found.repeated:
        watcher.say(f"files that were reached more than once and are taken once: {found.repeated}")
    return found


def _process(root: Path, units: list[PlannedUnit], config: _PrepareConfig, summary: Summary, watcher: Watcher) -> None:
    # Of this run alone, for no other writer's drafts may go with it; it is removed after no actor writes there any more.
    with own_scratch(root / "tmp") as scratch:
        _process_in(scratch, root, units, config, summary, watcher)


def _process_in(
    scratch: Path, root: Path, units: list[PlannedUnit], config: _PrepareConfig, summary: Summary, watcher: Watcher
) -> None:
    started = time.perf_counter()
    engine = _engine(config, root, scratch / "marks")
    progress = Progress(
        sum(len(unit.sessions) for unit in units), sum(unit.seconds for unit in units), costs=_costs(config)
    )
    unit_of = {session.session_id: unit for unit in units for session in unit.sessions}
    done: dict[str, list[Session]] = {unit.unit_id: [] for unit in units}
    notices: set[str] = set()

    def watch(group: str, outcome: Outcome) -> None:
        progress.stage_done(outcome)
        for stage, size in outcome.halved.items():
            if size < summary.halved.get(stage, size + 1):
                summary.halved[stage] = size
                watcher.say(f"{stage}: too little memory, going on with batches of {size}")
        for notice in outcome.notices:
            if notice not in notices:
                notices.add(notice)
                watcher.say(notice)
        watcher.stage_done(group, outcome)
        watcher.progressed(progress)

    def moved(session_id: str, stage: str, done_s: float) -> None:
        progress.moved(session_id, stage, done_s)
        watcher.progressed(progress)

    def finish(session: Session) -> None:
        unit = unit_of[session.session_id]
        done[unit.unit_id].append(session)
        summary.notices += session.notices
        _add_separation(summary.separation, session)
        thresholds = config.thresholds
        speech = [(row["duration_s"], row["kept"]) for row in segment_rows(session, thresholds)]
        progress.session_done(
            audio_s=sum(recording.duration_s for recording in session.recordings),
            speech_s=sum(seconds for seconds, _ in speech),
            kept_s=sum(seconds for seconds, kept in speech if kept),
        )
        watcher.session_done(session)
        watcher.progressed(progress)
        if len(done[unit.unit_id]) == len(unit.sessions):
            _commit(root, unit, done.pop(unit.unit_id), config, summary)

    try:
        engine.run(_starts(units, summary.fingerprint, str(scratch / "spool")), finish, watch, moved)
    except (LoadError, EngineError) as error:
        raise PrepareError(str(error)) from None
    except OSError as error:
        if is_full_disk(error):
            raise _disk_full(error, root, f"; {summary.units} of {len(units)} units are committed") from None
        raise
    finally:
        engine.close()
        summary.process_s = time.perf_counter() - started
        summary.cores = len(os.sched_getaffinity(0))
        summary.stage_s, summary.stage_audio_s = progress.stage_busy_s, progress.stage_audio_s
        summary.stage_cpu_s = progress.stage_cpu_s


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
    strikes = Strikes(root / "strikes")
    for session in sessions:
        strikes.clear(session.session_id)
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


def _add_separation(sums: dict[str, float], session: Session) -> None:
    for separation in (recording.separation for recording in session.recordings):
        if separation.tried_s:
            used, before = sum(end - start for start, end in separation.kept), sums.get("used_s", 0.0)
            gain = sum(
                (end - start) * rise for (start, end), rise in zip(separation.kept, separation.gains, strict=True)
            )
            sums["tried_s"] = sums.get("tried_s", 0.0) + separation.tried_s
            sums["used_s"] = before + used
            sums["gain"] = (before * sums.get("gain", 0.0) + gain) / max(before + used, 1e-9)


def _starts(units: list[PlannedUnit], fingerprint: str, spool: str) -> Iterator[Session]:
    for unit in units:
        for session in unit.sessions:
            yield session.start(fingerprint, spool)


def _costs(config: _PrepareConfig) -> dict[str, float]:
    """What the stages declare to cost beside each other. Of those on a GPU nothing is known that holds for every GPU."""
    kinds = [stage_class(spec.name) for group in config.groups() if not group.gpus for spec in group.stages]
    return {kind.name: kind.resources.cpus for kind in kinds}


def _engine(config: _PrepareConfig, root: Path, marks: Path) -> Engine:
    if config.engine.executor == "inline":
        return InlineEngine(config.groups(), marks)
    from pipeline.engine.ray_engine import RayEngine

    try:
        return RayEngine(config.groups(), marks, root / "strikes", config.engine.address, config.engine.in_flight)
    except LoadError as error:
        raise PrepareError(str(error)) from None
    except ConnectionError as error:
        raise no_cluster(config.engine.address, error) from None


def no_cluster(address: str | None, error: ConnectionError) -> PrepareError:
    """What is said where Ray cannot join a cluster."""
    return PrepareError(f"no Ray cluster at {address}: {' '.join(str(error).split())}")


def check_weights(names: Iterable[str]) -> None:
    """Raise PrepareError that says how to get them where weights are not here."""
    missing = [name for name in names if not available(name)]
    if len(missing) > 1 and not all(weights_of(name).mirrors for name in missing):
        # All at once, and before the hub is asked for each of them.
        raise PrepareError(
            f"the weights {', '.join(missing)} are not on this machine; run: voxmill models pull {' '.join(missing)}"
        )
    try:
        for name in names:
            resolve(name)
    except WeightsMissing as error:
        raise PrepareError(str(error)) from None


def _disk_full(error: OSError, root: Path, done: str = "") -> PrepareError:
    where = "" if isinstance(error, DiskFullError) and error.strerror else f" of {root}"
    words = error.strerror if where == "" else f"no space left on the disk{where}"
    return PrepareError(f"{words}: free some and run the same command again{done}; nothing is lost")


@contextmanager
def _full_disk_said(root: Path) -> Iterator[None]:
    """A disk that is full is one line wherever it is met: before the first unit, at a commit, at the end."""
    try:
        yield
    except OSError as error:
        if not is_full_disk(error):
            raise
        raise _disk_full(error, root) from None


def _announce(watcher: Watcher, summary: Summary, units: list[PlannedUnit], sources: list[Source]) -> None:
    sessions = sum(len(unit.sessions) for unit in units)
    seconds = sum(unit.seconds for unit in units)
    line = f"{len(sources)} {'recording' if len(sources) == 1 else 'recordings'} found"
    if summary.already_there:
        line += f", {summary.already_there} of them already in the corpus"
    watcher.say(f"{line}; {sessions} {'session' if sessions == 1 else 'sessions'}, {seconds / 60:.1f} minutes to do")
    watcher.planned(sessions, seconds)


def _refusal(row: Quarantined) -> dict[str, str]:
    return {"path": row.path, "stage": row.stage, "error": row.error}


def _added(tables: Iterable[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for table in tables:
        for key, value in table.items():
            total[key] = total.get(key, 0.0) + value
    return total
