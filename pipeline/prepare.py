"""`prepare`: make a corpus from sources. Find, plan, run the stages, commit, mark duplicates, describe, build the catalog."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from annotators.runner import describe_corpus
from catalogs.compaction.records import history_of
from catalogs.corpus.commit import bind_fingerprint, create_corpus, sweep_tmp, write_in_corpus
from catalogs.corpus.history import History
from catalogs.corpus.locks import Share, last_share, one_at_a_time, only_run, own_scratch
from catalogs.corpus.thresholds import apply_saved, saved_wins
from catalogs.query.views import build_catalog
from catalogs.settings import dump_settings
from catalogs.urls import redacted
from catalogs.weights.registry import weights as weights_of
from pipeline.config import PrepareConfig, load_config
from pipeline.duplicates.mark import mark_duplicates
from pipeline.engine.api import ContentLost, Engine, Event, GroupDone, ItemStarted, SessionDone, UnitWritten
from pipeline.engine.progress import Progress
from pipeline.records import Session
from pipeline.runs.commits import Commits
from pipeline.runs.engines import make_engine
from pipeline.runs.errors import PrepareError, stopping_in_one_line
from pipeline.runs.fingerprint import settle
from pipeline.runs.fresh import Fresh
from pipeline.runs.journal import (
    end_redo,
    failing_versions,
    remember_arguments,
    retry_rule,
    start_redo,
)
from pipeline.runs.output import CorpusOutput
from pipeline.runs.plan import starts
from pipeline.runs.sources import Given, open_sources
from pipeline.runs.summary import (
    Summary,
    new_lines,
    nothing_to_do,
    quarantine_lines,
    summary_lines,
)
from pipeline.runs.weights import check_weights
from pipeline.runs.work import Work
from pipeline.runtime.failures import Breaker
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
    share: Share | None = None,
) -> Summary:
    """Do what `voxmill prepare` does: process what is not committed yet of `paths` into the corpus `out`, describe it
    according to the settings, and build its catalog. With `redo`, process all of `paths`. With a `share`, process the
    sessions of that share: several runs may work on one corpus, and the last to end does what concerns all of it. Messages
    go to the logger `pipeline`.

    Raises PrepareError (nothing to do, another run at work, a model missing, disk full) and SourceError (a path that cannot
    be used). A file that cannot be processed raises nothing: it is put into the corpus' quarantine, with its reason.
    """
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(out)):
        raise PrepareError(
            f"{redacted(str(out))}: a corpus is made in a folder of this machine (or of a disk that all machines share), because "
            "stores cannot link a unit's record; give a folder, and copy it to the store afterwards"
        )
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
    if share and redo:
        raise PrepareError("--redo processes the corpus as a whole: give it without --share")
    fresh = Fresh(root)
    with stopping_in_one_line(root):
        if share:
            root.mkdir(parents=True, exist_ok=True)
            with one_at_a_time(root):
                create_corpus(root, name=config.name)
        else:
            create_corpus(root, name=config.name)
        # A share removes nothing when it fails: the others may have begun.
        with only_run(root, share), nullcontext() if share else fresh.removed_on_failure():
            summary = _prepare(paths, root, config, settled.fingerprint, redo, watch, share)
    log_lines(summary_lines(summary))
    if share and not _finish_shares(root, config, share, summary):
        log_lines(quarantine_lines(summary))
        return summary
    describe(corpus, config)
    path = build_catalog(corpus)
    if not summary.sessions and not summary.quarantined:
        log.info(nothing_to_do(corpus))
    log.info(f"catalog: {path}; next: voxmill report {shlex.quote(str(corpus))}")
    log_lines(quarantine_lines(summary))
    return summary


def _finish_shares(root: Path, config: PrepareConfig, share: Share, summary: Summary) -> bool:
    """Mark the duplicates of all shares if this run is the last at work; return whether it is."""
    with last_share(root) as last:
        if not last:
            log.info(
                f"share {share} is done; other runs are at work: duplicates, descriptions and the catalog are left to the "
                "last of them"
            )
            return False
        log.info(f"share {share} is done, and no other run is at work: duplicates, descriptions and the catalog follow")
        summary.duplicates = _mark_duplicates(root, config)
        return True


def _prepare(
    paths: Sequence[str],
    root: Path,
    config: PrepareConfig,
    fingerprint: str,
    redo: bool,
    watch: Watch,
    share: Share | None,
) -> Summary:
    with one_at_a_time(root):
        bind_fingerprint(root, fingerprint, redo)
    sweep_tmp(root)
    write_in_corpus(root, root / "prepare.yaml", dump_settings(config).encode())
    if line := saved_wins(root, config.thresholds):
        log.info(line)
    config = config.model_copy(update={"thresholds": apply_saved(root, config.thresholds)})
    history = history_of(root)
    given = open_sources(root, paths, config, share, history)
    if not given.names and not given.found.refused:
        raise PrepareError(
            f"no recordings in {redacted(', '.join(paths))}: give a folder, a file, a glob or a manifest of audio"
        )
    with one_at_a_time(root):
        remember_arguments(root, paths)
    done = history.done(retry_rule(config))
    if redo:
        done = history.done(retry_rule(config), start_redo(root, fingerprint))
    else:
        end_redo(root)
    # What failed before a redo does not count for it.
    counted = History(history.committed) if redo else history
    summary = process(root, config, fingerprint, given, done, counted, watch)
    if redo:
        end_redo(root)
    return summary


def process(
    root: Path,
    config: PrepareConfig,
    fingerprint: str,
    given: Given,
    done: Container[str],
    history: History,
    watch: Watch,
) -> Summary:
    """Process the sources that are not `done` and write run.json. The caller holds the corpus' run lock."""
    started = time.perf_counter()
    summary = Summary(str(root), fingerprint=fingerprint)
    work = Work(given, done, history, config, summary)
    with stopping_in_one_line(root, summary, work):
        work.start()
        if work.units:
            # The folder belongs to this run alone, so that its removal deletes no other writer's drafts. It is removed when
            # no actor writes there any more.
            with own_scratch(root / "tmp") as scratch:
                _run(root, scratch, work, config, summary, history, watch)
        if given.share is None:
            summary.duplicates = _mark_duplicates(root, config)
    summary.wall_s, summary.ended_at = time.perf_counter() - started, datetime.now(UTC).isoformat(timespec="seconds")
    summary.notices = list(dict.fromkeys(summary.notices))
    name = f"run-{given.share.name}.json" if given.share else "run.json"
    write_in_corpus(root, root / name, json.dumps(asdict(summary), indent=1).encode())
    return summary


def _run(
    root: Path,
    scratch: Path,
    work: Work,
    config: PrepareConfig,
    summary: Summary,
    history: History,
    watch: Watch,
) -> None:
    """Run the units' sessions through the stages, and commit each unit when its last session is done."""
    started = time.perf_counter()
    output = CorpusOutput(root, config.thresholds)
    engine = make_engine(config.engine, config.groups(), root, scratch / "marks", output)
    progress = Progress(0, 0.0, costs=_costs(config))
    work.follow(progress)
    breaker = Breaker()
    commits = Commits(root, failing_versions(config), summary, history, breaker, engine.write, scratch)
    units = work.announced(commits.expect)
    told: set[str] = set()
    try:
        for event in _events(engine, starts(units, summary.fingerprint, str(scratch / "spool")), commits):
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
                    progress.session_done(**_seconds(event), planned_s=work.planned_s[event.session.session_id])
                    watch(event, progress)
                    commits.add(event)
                case UnitWritten():
                    commits.link(event)
                case ContentLost():
                    for gone in commits.lost(event):
                        progress.session_lost(**_seconds(gone), planned_s=work.planned_s[gone.session.session_id])
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
