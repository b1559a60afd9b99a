"""`retry`: process again what failed in a corpus, from the sources that its runs were given."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from annotators.providers import ANNOTATORS
from catalogs.corpus.attempts import CAUSES, cause_of_row
from catalogs.corpus.commit import CorpusError, bind_fingerprint, corpus_info, sweep_tmp
from catalogs.corpus.history import History, note_replaced, read_history, refused_files, replaced_sources
from catalogs.corpus.locks import CorpusBusyError, only_run
from catalogs.settings import read_yaml
from pipeline.config import PrepareConfig, load_config
from pipeline.inputs.find import FoundSources, SourceError
from pipeline.prepare import PrepareError, Summary, Watcher, check_weights, find, full_disk_said, present, work
from pipeline.runs.fingerprint import settle
from pipeline.runs.journal import known_arguments, note_refused, places
from pipeline.runtime.paths import public
from pipeline.stages import STAGES

DEFAULT_CAUSES = ("machine", "bug")
"""A broken recording (`data`) would fail again; it is tried where it is asked for."""


def failures(
    root: str | Path, stage: str | None = None, causes: Collection[str] = DEFAULT_CAUSES
) -> dict[str, list[dict[str, Any]]]:
    """Quarantine rows of what `retry` processes again: of committed sources by source id, and of files that were refused while
    sources were listed (stage `sources`) by path.

    Raises PrepareError for a cause that does not exist or a stage that nothing failed in, CorpusError for a folder that is
    not a corpus.
    """
    corpus_info(root)
    return _failures(Path(root), read_history(root), stage, causes)


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


def settings_of(root: str | Path) -> PrepareConfig:
    """The settings that a corpus was prepared with. Raises PrepareError if they are not there, ExtensionError if they name
    a class of a package that lies in the corpus: what came with somebody's data is not run."""
    path = Path(root) / "prepare.yaml"
    if not path.is_file():
        raise PrepareError(f"{path} is missing: run voxmill prepare with the recordings and the settings again")
    values = read_yaml(path)
    stages, describe = values.get("stages"), values.get("describe")
    for entry in stages if isinstance(stages, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("stage"), str):
            STAGES.refuse_inside(entry["stage"], root)
    if isinstance(describe, str) and describe != "none":
        ANNOTATORS.refuse_inside(describe, root)
    return load_config(path)


def retry(
    root: str | Path,
    config: PrepareConfig,
    watcher: Watcher,
    stage: str | None = None,
    causes: Collection[str] = DEFAULT_CAUSES,
) -> Summary:
    """Process what `failures` gives again: failed sources, what lies in their place by now, and refused files that can be read.

    Raises PrepareError as `prepare` does, and where the corpus does not know its sources.
    """
    root = Path(root).expanduser().absolute()
    corpus_info(root)
    settled = settle(config, root)
    check_weights(settled.config.weights())
    with full_disk_said(root):
        try:
            with only_run(root):
                bind_fingerprint(root, settled.fingerprint)
                sweep_tmp(root)
                return _retry(root, settled.config, settled.fingerprint, watcher, stage, causes)
        except (CorpusBusyError, CorpusError) as error:
            raise PrepareError(str(error)) from None


def _retry(
    root: Path,
    config: PrepareConfig,
    fingerprint: str,
    watcher: Watcher,
    stage: str | None,
    causes: Collection[str],
) -> Summary:
    if not known_arguments(root):
        raise PrepareError(
            f"{root} does not know its sources (an older voxmill made it): run voxmill prepare with them once"
        )
    history = read_history(root)
    chosen = _failures(root, history, stage, causes)
    paths = {row["path"] for rows in chosen.values() for row in rows}
    found = FoundSources()
    for part, asked in _find_all(root, config, watcher):
        note_refused(root, part, asked, paths)
        known = {source.source_id for source in found.sources}
        found.sources += [source for source in part.sources if source.source_id not in known]
        found.refused += part.refused
    note_replaced(root, history, [(path, source) for path, source in present(found) if path in paths])
    wanted = (chosen.keys() & history.failures.keys()) - set(replaced_sources(root))
    ids = {source.source_id for source in found.sources}
    if missing := wanted - ids:
        first = history.failures[min(missing)][0]["path"]
        watcher.say(
            f"{len(missing)} failed recordings are not found any more, e.g. {first}: they stay in the quarantine"
            if len(missing) > 1
            else f"1 failed recording is not found any more: {first}; it stays in the quarantine"
        )
    fresh = [source for source in found.sources if source.source_id not in history.generations] if paths else []
    wanted |= {source.source_id for source in fresh if not paths.isdisjoint(places([public(source.path)]))}
    return work(root, config, fingerprint, watcher, found, ids - wanted, history)


def _find_all(root: Path, config: PrepareConfig, watcher: Watcher) -> Iterator[tuple[FoundSources, list[str]]]:
    """What each run's sources are now. Each run's by themselves: what a recording is called depends on all that was given."""
    for arguments in known_arguments(root):
        try:
            yield find(root, arguments, config, watcher), arguments
        except SourceError as error:
            watcher.say(f"left out: {error}")
