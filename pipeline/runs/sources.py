"""The sources of a run into a corpus, with the settings and the kept hashes of that corpus."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from catalogs.corpus.commit import corpus_info
from catalogs.corpus.history import History, note_replaced, refused_files
from catalogs.corpus.locks import Share, one_at_a_time
from catalogs.corpus.tombstones import forgotten_contents
from catalogs.urls import public
from pipeline.config import PrepareConfig
from pipeline.inputs.find import FoundSources, SourceListing, all_sources
from pipeline.inputs.hashes import KeptHashes
from pipeline.inputs.members import HashTable
from pipeline.inputs.rights import RightsDesk
from pipeline.records import Source
from pipeline.runs.journal import gone_line, known_arguments, note_refused, write_refused
from pipeline.runs.plan import estimated_seconds

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Given:
    """What a run is given: its sessions as they are read, and what is known of them before."""

    sessions: Iterable[tuple[str, Sequence[Source]]]
    """(name, sources) in order of names. Reading them may take as long as processing them."""
    names: Collection[str]
    """Names of all sessions, those of other shares included."""
    found: FoundSources
    """What was refused and skipped. It is complete when all sessions are read."""
    total_s: float
    """About how many seconds all sessions last, those of other shares included."""
    share: Share | None = None


def listed(
    paths: Sequence[str],
    config: PrepareConfig,
    hashes: HashTable,
    root: Path | None = None,
    history: History | None = None,
) -> SourceListing:
    """Return the files at `paths`, by the settings of a run. root, history: the corpus, if there is one: recordings that it holds
    are not refused for their license, and what it has forgotten is refused. Raises SourceError."""
    known = history or History()
    desk = RightsDesk(
        config.sources.rights,
        config.sources.licenses,
        corpus_info(root).get("license") if root else None,
        lambda source: source in known.committed and source not in known.failures,
        forgotten_contents(root) if root else None,
    )
    return SourceListing(
        paths,
        session=config.sources.session,
        language=config.sources.language,
        hashes=hashes,
        stores=config.stores(),
        largest_gb=config.sources.largest_gb,
        desk=desk,
    )


def total_seconds(listing: SourceListing) -> float:
    """Return about how many seconds the recordings of a listing last."""
    return estimated_seconds(
        (item.member.location if item.member else item.entry.path, item.bytes) for item in listing.candidates
    )


def open_sources(
    root: Path, paths: Sequence[str], config: PrepareConfig, share: Share | None, history: History
) -> Given:
    """List the sources of a run. They are read when the sessions are asked for. When all are read, the corpus notes which files
    were refused and which failed sources were replaced. Files that have not changed since the last run are not read again.

    Raises SourceError.
    """
    hashes = KeptHashes(root, share.name if share else None)
    listing = listed(paths, config, hashes, root, history)
    met = _Met(root, paths, history, share)

    def sessions() -> Iterator[tuple[str, Sequence[Source]]]:
        with closing(hashes):
            for name, sources in listing.sessions(share.holds if share else lambda name: True):
                met.add(sources)
                yield name, sources
        _log_notices(listing.found)
        met.settle(listing.found)

    return Given(sessions(), listing.names, listing.found, total_seconds(listing), share)


class _Met:
    """What a run has to know of its sources when all are read: their ids, and those whose path has failed before."""

    def __init__(self, root: Path, paths: Sequence[str], history: History, share: Share | None) -> None:
        self._root, self._paths, self._history, self._share = root, paths, history, share
        self._known = known_arguments(root)
        self._watched = {row["path"] for _, row, _ in refused_files(root)}
        self._watched |= {row["path"] for rows in history.failures.values() for row in rows}
        self._ids: set[str] = set()
        self._failed: list[Source] = []

    def add(self, sources: Sequence[Source]) -> None:
        self._ids.update(source.source_id for source in sources)
        self._failed.extend(source for source in sources if public(source.path) in self._watched)

    def settle(self, found: FoundSources) -> None:
        """Note what was refused and replaced. A share adds verdicts on refused files only: others may have seen the rest."""
        root = self._root
        with one_at_a_time(root):
            note_replaced(root, self._history, present(found, self._failed))
            if self._share:
                write_refused(root, found, self._paths)
                return
            note_refused(root, found, {public(source.path) for source in self._failed}, self._paths)
        if line := gone_line(root, self._ids, found, self._known, self._paths, self._history):
            log.info(line)


def find(root: Path, paths: Sequence[str], config: PrepareConfig, history: History) -> FoundSources:
    """Return the sources, all at once, and log notices about them. Files that have not changed since the last run are not
    read again."""
    with closing(KeptHashes(root)) as hashes:
        found = all_sources(listed(paths, config, hashes, root, history))
    _log_notices(found)
    return found


def by_session(sources: Iterable[Source]) -> list[tuple[str, list[Source]]]:
    """Return (session, its sources) in order of names."""
    sessions: dict[str, list[Source]] = {}
    for source in sources:
        sessions.setdefault(source.session_id, []).append(source)
    return sorted(sessions.items())


def present(found: FoundSources, sources: Iterable[Source]) -> list[tuple[str, str]]:
    """Return (path, source id) for each path as it is now; without an id if it is refused."""
    return [(row.path, "") for row in found.refused] + [(public(s.path), s.source_id) for s in sources]


def _log_notices(found: FoundSources) -> None:
    for notice in found.notices:
        log.info(notice)
    if line := found.passed_over():
        log.info(line)
    if found.repeated:
        log.info("files that were reached more than once and are taken once: %d", found.repeated)
