"""`retry`: process what failed in a corpus again, from the sources that its runs were given."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from annotators.providers import ANNOTATORS
from catalogs.compaction.records import history_of
from catalogs.corpus.attempts import CAUSES, cause_of_row
from catalogs.corpus.commit import bind_fingerprint, corpus_info, sweep_tmp
from catalogs.corpus.history import History, note_replaced, refused_files, replaced_sources
from catalogs.corpus.locks import only_run
from catalogs.query.views import build_catalog
from catalogs.settings import read_yaml
from catalogs.urls import public
from catalogs.words import counted
from pipeline.config import PrepareConfig, load_config
from pipeline.inputs.find import FoundSources, SourceError
from pipeline.prepare import Watch, describe, ignore, log_lines, process
from pipeline.runs.errors import PrepareError, stopping_in_one_line
from pipeline.runs.fingerprint import settle
from pipeline.runs.journal import known_arguments, note_refused, places
from pipeline.runs.plan import estimated_seconds
from pipeline.runs.sources import Given, by_session, find, present
from pipeline.runs.summary import Summary, quarantine_lines, summary_lines
from pipeline.runs.weights import check_weights
from pipeline.stages import STAGES

log = logging.getLogger(__name__)

DEFAULT_CAUSES = ("machine", "bug")
"""A broken recording (`data`) would fail again; it is tried only on request."""


def failures(
    root: str | Path, stage: str | None = None, causes: Collection[str] = DEFAULT_CAUSES
) -> dict[str, list[dict[str, Any]]]:
    """Return the quarantine rows of what `retry` processes again. Committed sources are listed by source id, files that
    were refused during the listing of sources (stage `sources`) by path.

    Raises PrepareError for an unknown cause or a stage in which nothing failed, CorpusError for a folder that is not a
    corpus.
    """
    corpus_info(root)
    return _failures(Path(root), history_of(root), stage, causes)


def _failures(
    root: Path, history: History, stage: str | None, causes: Collection[str]
) -> dict[str, list[dict[str, Any]]]:
    if unknown := [cause for cause in causes if cause not in CAUSES]:
        raise PrepareError(f"no cause {', '.join(unknown)}; causes: {', '.join(CAUSES)}")
    gone = set(replaced_sources(root))
    present = {source: rows for source, rows in history.failures.items() if source not in gone}
    for _, row, _ in refused_files(root):
        present.setdefault(row["path"], []).append(row)
    stages = sorted({row["stage"] for rows in present.values() for row in rows})
    if stage is not None and stage not in stages:
        raise PrepareError(f"nothing failed in a stage {stage}; failures are in: {', '.join(stages) or 'no stage'}")
    return {
        source: rows
        for source, rows in present.items()
        if any(cause_of_row(row) in causes and stage in (None, row["stage"]) for row in rows)
    }


def settings_of(root: str | Path, overrides: Iterable[str] = ()) -> PrepareConfig:
    """Return the settings that a corpus was prepared with, with `a.b=c` overrides.

    Raises PrepareError if they are missing, CorpusError for a folder that is not a corpus, ExtensionError if they name a
    class of a package inside the corpus: code that came with data is not run.
    """
    corpus_info(root)
    path = Path(root) / "prepare.yaml"
    if not path.is_file():
        raise PrepareError(f"{path} is missing: run voxmill prepare with the recordings and the settings again")
    values = read_yaml(path)
    stages, annotator = values.get("stages"), values.get("describe")
    for entry in stages if isinstance(stages, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("stage"), str):
            STAGES.refuse_inside(entry["stage"], root)
    if isinstance(annotator, str) and annotator != "none":
        ANNOTATORS.refuse_inside(annotator, root)
    return load_config(path, overrides)


def retry_lines(wanted: Mapping[str, list[dict[str, Any]]], stage: str | None, causes: Collection[str]) -> list[str]:
    """Return messages that count what `failures` returns: recordings that failed, and files that were refused."""
    refused = len({row["path"] for rows in wanted.values() for row in rows if row["stage"] == "sources"})
    failed, where, why = len(wanted) - refused, f" in {stage}" if stage else "", ", ".join(causes)
    lines = []
    if failed or not refused:
        verb = "is" if failed == 1 else "are"
        lines.append(f"{counted(failed, 'recording')} that failed{where} ({why}) {verb} processed again")
    if refused:
        file = "file that was" if refused == 1 else "files that were"
        lines.append(f"{refused} {file} refused before any stage ({why}): processed now if they can be read")
    return lines


def retry(
    root: str | Path,
    config: PrepareConfig | None = None,
    stage: str | None = None,
    causes: Collection[str] = DEFAULT_CAUSES,
    watch: Watch = ignore,
) -> Summary:
    """Do what `voxmill retry` does: process again what `failures` returns, describe the corpus and build its catalog. That
    is failed sources, files that replaced them since, and refused files that can be read now. `config`: by default, the
    corpus' own settings.

    Raises PrepareError as `prepare` does, and if the corpus does not know its sources.
    """
    corpus = Path(root).expanduser()
    root = corpus.absolute()
    log_lines(retry_lines(failures(corpus, stage, causes), stage, causes))
    settled = settle(config or settings_of(corpus), root)
    check_weights(settled.config.weights())
    with stopping_in_one_line(root), only_run(root):
        bind_fingerprint(root, settled.fingerprint)
        sweep_tmp(root)
        summary = _retry(root, settled.config, settled.fingerprint, stage, causes, watch)
    describe(corpus, settled.config)
    build_catalog(corpus)
    log_lines([*summary_lines(summary), *quarantine_lines(summary)])
    return summary


def _retry(
    root: Path,
    config: PrepareConfig,
    fingerprint: str,
    stage: str | None,
    causes: Collection[str],
    watch: Watch,
) -> Summary:
    if not known_arguments(root):
        raise PrepareError(
            f"{root} does not know its sources (an older voxmill made it): run voxmill prepare with them once"
        )
    history = history_of(root)
    chosen = _failures(root, history, stage, causes)
    paths = {row["path"] for rows in chosen.values() for row in rows}
    found = FoundSources()
    for part, asked in _find_all(root, config, history):
        note_refused(root, part, {public(source.path) for source in part.sources}, asked, paths)
        known = {source.source_id for source in found.sources}
        found.sources += [source for source in part.sources if source.source_id not in known]
        found.refused += part.refused
    note_replaced(root, history, [(path, source) for path, source in present(found, found.sources) if path in paths])
    wanted = (chosen.keys() & history.failures.keys()) - set(replaced_sources(root))
    ids = {source.source_id for source in found.sources}
    if missing := wanted - ids:
        first = history.failures[min(missing)][0]["path"]
        log.info(
            f"{len(missing)} failed recordings are not found any more, e.g. {first}: they stay in the quarantine"
            if len(missing) > 1
            else f"1 failed recording is not found any more: {first}; it stays in the quarantine"
        )
    fresh = [source for source in found.sources if source.source_id not in history.committed] if paths else []
    wanted |= {source.source_id for source in fresh if not paths.isdisjoint(places([public(source.path)]))}
    sessions = by_session(found.sources)
    total_s = estimated_seconds((source.path, source.bytes) for source in found.sources)
    given = Given(sessions, [name for name, _ in sessions], found, total_s)
    return process(root, config, fingerprint, given, ids - wanted, history, watch)


def _find_all(root: Path, config: PrepareConfig, history: History) -> Iterator[tuple[FoundSources, list[str]]]:
    """Yield the present sources of each run with its arguments. Runs are listed separately, because the name of a recording
    depends on all arguments of its run."""
    for arguments in known_arguments(root):
        try:
            yield find(root, arguments, config, history), arguments
        except SourceError as error:
            log.info(f"left out: {error}")
