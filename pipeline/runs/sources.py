"""The sources of a run into a corpus, with the settings and the kept hashes of that corpus."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping, Sequence
from pathlib import Path

from pipeline.config import PrepareConfig
from pipeline.inputs.find import FoundSources, HashKey, find_sources
from pipeline.inputs.hashes import KeptHashes
from pipeline.runtime.paths import public

log = logging.getLogger(__name__)


def listed(paths: Sequence[str], config: PrepareConfig, hashes: MutableMapping[HashKey, str]) -> FoundSources:
    """Return the sources at `paths`, by the settings of a run. Raises SourceError."""
    return find_sources(
        paths,
        session=config.sources.session,
        language=config.sources.language,
        hashes=hashes,
        stores=config.stores(),
        largest_gb=config.sources.largest_gb,
    )


def find(root: Path, paths: Sequence[str], config: PrepareConfig) -> FoundSources:
    """Return the sources and log notices about them. Files that have not changed since the last run are not hashed again."""
    hashes = KeptHashes(root)
    found = listed(paths, config, hashes)
    hashes.settle()
    for notice in found.notices:
        log.info(notice)
    if line := found.passed_over():
        log.info(line)
    if found.repeated:
        log.info("files that were reached more than once and are taken once: %d", found.repeated)
    return found


def present(found: FoundSources) -> list[tuple[str, str]]:
    """Return (path, source id) for each path as it is now; without an id if it is refused."""
    return [(row.path, "") for row in found.refused] + [(public(s.path), s.source_id) for s in found.sources]
