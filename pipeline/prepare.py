"""`prepare`: make a corpus from sources. Find, plan, run the stages, commit, mark duplicates, describe, build the catalog."""

from __future__ import annotations

import json
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from annotators.runner import describe_corpus
from catalogs.corpus.commit import bind_fingerprint, create_corpus, sweep_tmp, write_in_corpus
from catalogs.corpus.fresh import Fresh
from catalogs.corpus.history import History, note_replaced, read_history
from catalogs.corpus.locks import only_run, own_scratch
from catalogs.corpus.thresholds import apply_saved, saved_wins
from catalogs.durations import duration_text
from catalogs.query.views import build_catalog
from catalogs.settings import dump_settings
from catalogs.weights.registry import weights as weights_of
from catalogs.words import counted
from pipeline.config import PrepareConfig, load_config
from pipeline.duplicates.mark import mark_duplicates
from pipeline.engine.api import ContentLost, Engine, Event, GroupDone, ItemStarted, SessionDone, UnitWritten
from pipeline.engine.inline import InlineEngine
from pipeline.engine.progress import Progress
from pipeline.inputs.find import FoundSources
from pipeline.records import Session
from pipeline.runs.commits import Commits
from pipeline.runs.errors import PrepareError, no_cluster, stopping_in_one_line
from pipeline.runs.fingerprint import settle
from pipeline.runs.journal import (
    end_redo,
    failing_versions,
    gone_line,
    note_refused,
    remember_arguments,
    retry_rule,
    start_redo,
)
from pipeline.runs.output import CorpusOutput
from pipeline.runs.plan import PlannedUnit, plan_units, promised_lengths, starts
from pipeline.runs.sources import find, present
from pipeline.runs.summary import (
    Summary,
    new_lines,
    nothing_to_do,
    quarantine_lines,
    refusal,
    summary_lines,
)
from pipeline.runs.weights import check_weights
from pipeline.runtime.failures import Breaker
from pipeline.runtime.paths import redacted
from pipeline.stages import stage_class

log = logging.getLogger(__name__)

Watch = Callable[[Event, Progress], None]
"""Callback for each event of the engine, with the state of the run after it: a terminal's progress display, or nothing."""


def ignore(event: Event, progress: Progress) -> None:
    """Watch nothing."""


def prepare(
    paths: Sequence[str],
    out: str | Path,
    config: PrepareConfig | None = None,
    redo: bool = False,
    watch: Watch = ignore,
) -> Summary:
    """Do what `voxmill prepare` does: process what is not committed yet of `paths` into the corpus `out`, describe it
    according to the settings, and build its catalog. With `redo`, process all of `paths`. Messages go to the logger
    `pipeline`.

    Raises PrepareError (nothing to do, another run at work, a model missing, disk full) and SourceError (a path that cannot
    be used). A file that cannot be processed raises nothing: it is put into the corpus' quarantine, with its reason.
    """
    corpus = Path(out).expanduser()
    # Actors on a cluster have other working directories.
    root = corpus.absolute()
    config = config or load_config()
    log_lines(config.ignored)
    settled = settle(config, root, redo)
    config = settled.config
    if settled.notice:
        log.info(settled.notice)
    check_weights(config.weights())
    fresh = Fresh(root)
    with stopping_in_one_line(root):
        create_corpus(root, name=config.name)
        with only_run(root), fresh.removed_on_failure():
            summary = _prepare(paths, root, config, settled.fingerprint, redo, watch)
    log_lines(summary_lines(summary))
    describe(corpus, config)
    path = build_catalog(corpus)
    if not summary.sessions and not summary.quarantined:
        log.info(nothing_to_do(corpus))
    log.info(f"catalog: {path}; next: voxmill report {shlex.quote(str(corpus))}")
    log_lines(quarantine_lines(summary))
    return summary


def _prepare(
    paths: Sequence[str], root: Path, config: PrepareConfig, fingerprint: str, redo: bool, watch: Watch
) -> Summary:
    bind_fingerprint(root, fingerprint, redo)
    sweep_tmp(root)
    write_in_corpus(root, root / "prepare.yaml", dump_settings(config).encode())
    if line := saved_wins(root, config.thresholds):
        log.info(line)
    config = config.model_copy(update={"thresholds": apply_saved(root, config.thresholds)})
    found = find(root, paths, config)
    note_refused(root, found, paths)
    if not found.sources and not found.refused:
        raise PrepareError(
            f"no recordings in {redacted(', '.join(paths))}: give a folder, a file, a glob or a manifest of audio"
        )
    history = read_history(root)
    if line := gone_line(root, found, paths, history):
        log.info(line)
    remember_arguments(root, paths)
    note_replaced(root, history, present(found))
    done = history.done(retry_rule(config))
    if redo:
        since = start_redo(root, fingerprint)
        done = {source for source in done if history.committed_at[source] >= since}
        history.failures.clear()
    else:
        end_redo(root)
    summary = process(root, config, fingerprint, found, done, history, watch)
    if redo:
        end_redo(root)
    return summary


def process(
    root: Path,
    config: PrepareConfig,
    fingerprint: str,
    found: FoundSources,
    done: set[str],
    history: History,
    watch: Watch,
) -> Summary:
    """Process the sources that are not `done` and write run.json. The caller holds the corpus' run lock."""
    started = time.perf_counter()
    sources, generations = found.sources, history.generations
    lengths = promised_lengths(sources, done)
    units = plan_units(sources, done, fingerprint, config.unit_s, lengths, config.sources.session_s, generations)
    summary = Summary(str(root), len(sources) + len(found.refused), fingerprint=fingerprint)
    summary.ignored_files = found.ignored
    summary.already_there = sum(source.source_id in done for source in sources)
    summary.tried_again = sum(s.source_id in generations and s.source_id not in done for s in sources)
    summary.quarantined = [refusal(row) for row in found.refused]
    _announce(summary, units, len(sources))
    with stopping_in_one_line(root, summary, len(units)):
        if units:
            # The folder belongs to this run alone, so that its removal deletes no other writer's drafts. It is removed when
            # no actor writes there any more.
            with own_scratch(root / "tmp") as scratch:
                _run(root, scratch, units, config, summary, history, watch)
        summary.duplicates = _mark_duplicates(root, config)
    summary.wall_s = time.perf_counter() - started
    summary.notices = list(dict.fromkeys(summary.notices))
    write_in_corpus(root, root / "run.json", json.dumps(asdict(summary), indent=1).encode())
    return summary


def _run(
    root: Path,
    scratch: Path,
    units: list[PlannedUnit],
    config: PrepareConfig,
    summary: Summary,
    history: History,
    watch: Watch,
) -> None:
    """Run the units' sessions through the stages, and commit each unit when its last session is done."""
    started = time.perf_counter()
    engine = _engine(config, root, scratch / "marks")
    waiting = starts(units, summary.fingerprint, str(scratch / "spool"))
    planned_s = {session.session_id: session.seconds for unit in units for session in unit.sessions}
    progress = Progress(len(planned_s), sum(planned_s.values()), costs=_costs(config))
    breaker = Breaker()
    commits = Commits(root, units, failing_versions(config), summary, history, breaker, engine.write, scratch)
    told: set[str] = set()
    try:
        for event in _events(engine, waiting, commits):
            match event:
                case ItemStarted():
                    progress.item_started(event)
                    watch(event, progress)
                case GroupDone(outcome=outcome):
                    progress.stage_done(outcome)
                    log_lines(new_lines(summary, outcome, told))
                    watch(event, progress)
                    breaker.add(outcome.tallies)
                case SessionDone():
                    progress.session_done(**_seconds(event), planned_s=planned_s[event.session.session_id])
                    watch(event, progress)
                    commits.add(event)
                case UnitWritten():
                    commits.link(event)
                case ContentLost():
                    for gone in commits.lost(event):
                        progress.session_lost(**_seconds(gone), planned_s=planned_s[gone.session.session_id])
    finally:
        engine.close()
        commits.close()
        summary.process_s = time.perf_counter() - started
        summary.cores = len(os.sched_getaffinity(0))
        summary.stage_s, summary.stage_audio_s = progress.stage_busy_s, progress.stage_audio_s
        summary.stage_cpu_s = progress.stage_cpu_s


def _events(engine: Engine, waiting: Iterable[Session], commits: Commits) -> Iterator[Event]:
    """Yield the engine's events until every session is done and every unit is committed."""
    yield from engine.run(waiting)
    while commits.release(everything=True):
        yield from engine.run(())


def _seconds(done: SessionDone) -> dict[str, float]:
    audio_s = sum(recording.duration_s for recording in done.session.recordings)
    return {"audio_s": audio_s, "speech_s": done.counts.speech_s, "kept_s": done.counts.kept_s}


def _engine(config: PrepareConfig, root: Path, marks: Path) -> Engine:
    output = CorpusOutput(root, config.thresholds)
    if config.engine.executor == "inline":
        return InlineEngine(config.groups(), marks, output)
    from pipeline.engine.ray_engine import RayEngine

    try:
        return RayEngine(
            config.groups(), marks, root / "strikes", config.engine.address, config.engine.in_flight, output
        )
    except ConnectionError as error:
        raise no_cluster(config.engine.address, error) from None


def _costs(config: PrepareConfig) -> dict[str, float]:
    """Return the cost of each stage relative to the others, as declared. Stages on a GPU are left out: their cost depends
    on the GPU."""
    kinds = [stage_class(spec.name) for group in config.groups() if not group.gpus for spec in group.stages]
    return {kind.name: kind.resources.cpus for kind in kinds}


def _mark_duplicates(root: Path, config: PrepareConfig) -> dict[str, int]:
    """Mark duplicates among all committed segments, because a copy may be of an earlier run's segment. Return the count per
    kind."""
    marked = mark_duplicates(root, weights_of(config.speaker_encoder).cosine_threshold or 0.7)
    if marked.done and marked.kinds:
        found = ", ".join(f"{count} {kind}" for kind, count in marked.kinds.items())
        log.info(f"duplicates marked, none removed: {found}")
    return marked.kinds


def describe(corpus: Path, config: PrepareConfig) -> None:
    """Describe the kept segments of a corpus, if its settings ask for it."""
    if config.describe != "none":
        log.info(describe_corpus(corpus, config.describe).line)


def log_lines(lines: Iterable[str]) -> None:
    """Log each line separately."""
    for line in lines:
        log.info(line)


def _announce(summary: Summary, units: list[PlannedUnit], sources: int) -> None:
    seconds = sum(unit.seconds for unit in units)
    line = f"{counted(sources, 'recording')} found"
    if summary.already_there:
        line += f", {summary.already_there} of them already in the corpus"
    if summary.tried_again:
        line += f", {summary.tried_again} of them tried again"
    sessions = counted(sum(len(unit.sessions) for unit in units), "session")
    log.info(f"{line}; {sessions}, {duration_text(seconds)} to do")
