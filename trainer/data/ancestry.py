"""What a lineage says of the checkpoint that a run begins with, and of its corpora."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from catalogs.corpus.commit import corpus_info
from catalogs.corpus.tombstones import standing
from catalogs.lineage.digest import corpus_digest
from catalogs.lineage.files import read_lineage, read_table
from catalogs.lineage.record import COLUMNS, Ancestor, DrawnCorpus, LineageError, Role
from catalogs.lineage.rows import of_an_ancestor
from catalogs.weights.checkpoint_files import checkpoint_digest
from trainer.data.corpora import Corpora
from voxcpm.weights.checkpoint import find_checkpoint

log = logging.getLogger(__name__)


class Brought(NamedTuple):
    """What a checkpoint brings with it to those that are made from it."""

    ancestors: tuple[Ancestor, ...]
    rows: pa.Table
    gaps: tuple[str, ...] = ()
    """What is not known of its training itself. That an ancestor is unknown is in `ancestors`."""


def ancestor_of(role: Role, given: str) -> Brought:
    """Return what a checkpoint brings with it. If it has no lineage, or one of other files, it is unknown."""
    local = Path(given).expanduser()
    name = _name(local) if local.is_dir() else given
    try:
        folder = find_checkpoint(given, local_files_only=True)
    except FileNotFoundError:
        return Brought((Ancestor(1, role, name, None, False),), COLUMNS.empty_table())
    digest = checkpoint_digest(folder)
    try:
        found = read_lineage(folder)
        if found is not None and found.digest != digest:
            raise LineageError(
                f"{folder} holds other files than its lineage describes: what it was trained on is not known"
            )
        rows = read_table(found) if found is not None else None
    except LineageError as error:
        log.info(f"note: {error}")
        found = rows = None
    if found is None or rows is None:
        return Brought((Ancestor(1, role, name, digest, False),), COLUMNS.empty_table())
    further = (Ancestor(a.generation + 1, a.role, a.name, a.digest, a.known) for a in found.ancestors)
    gaps = tuple(f"of {name}: {gap}" for gap in found.own_gaps)
    ancestors = (Ancestor(1, role, name, digest, True), *further)
    return Brought(ancestors, of_an_ancestor(rows, codec_only=role == "codec"), gaps)


def corpora_entries(corpora: Corpora) -> tuple[DrawnCorpus, ...]:
    """Return the corpora of a run, each with a name that no other has."""
    found, taken = [], Counter[str]()
    for part in corpora.parts:
        info = corpus_info(part.path)
        name = str(info.get("name") or part.path.resolve().name)
        taken[name] += 1
        unique = name if taken[name] == 1 else f"{name}#{taken[name]}"
        digest = corpus_digest(part.path, part.records)
        found.append(DrawnCorpus(unique, digest, info.get("fingerprint"), part.path.resolve().name))
    return tuple(found)


def tombstones(corpora: Corpora) -> tuple[str, ...]:
    """Return the ids of the tombstones of all corpora. Their segments are in no candidate table."""
    return tuple(sorted({one.id for part in corpora.parts for one in standing(part.path)}))


def _name(folder: Path) -> str:
    """Return a name that tells the run and the step, but not where they are."""
    folder = folder.resolve()
    return f"{folder.parents[1].name}/{folder.name}" if folder.parent.name == "checkpoints" else folder.name
