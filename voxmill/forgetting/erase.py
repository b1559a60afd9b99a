"""The two steps of forgetting: hide, then erase. Each may be killed at any point; `erase` ends what was begun."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from catalogs.corpus.commit import corpus_info
from catalogs.corpus.fsck import fsck
from catalogs.corpus.locks import only_run
from catalogs.corpus.tombstones import ERASED, HIDDEN, PLANNED, Tombstone, standing, write_tombstone
from catalogs.query.views import build_catalog
from catalogs.words import counted
from voxmill.forgetting.companions import erase_companions
from voxmill.forgetting.scope import with_new_units
from voxmill.forgetting.traces import drop_copies, erase_traces, erase_unnamed
from voxmill.forgetting.units import Gone, erase_units

Say = Callable[[str], None]
"""Called with one line for each step."""


def hide(root: Path, tombstone: Tombstone, prints: Sequence[tuple[str, bytes]] = ()) -> None:
    """Write a tombstone: from then on no reader of voxmill shows what it names. Then remove the copies that other programs read.

    Raises CorpusBusyError while a run is at work on the corpus.
    """
    with only_run(root):
        hide_locked(root, tombstone, prints)


def hide_locked(root: Path, tombstone: Tombstone, prints: Sequence[tuple[str, bytes]] = ()) -> None:
    """Do what `hide` does; the caller holds the run lock."""
    write_tombstone(root, tombstone, prints)
    _settle_hidden(root, tombstone)


def erase(root: Path, say: Say = lambda line: None) -> list[str]:
    """Erase what the standing tombstones of a corpus name; return what fsck finds afterwards. Without any, do nothing.

    Raises CorpusBusyError while a run is at work on the corpus.
    """
    corpus_info(root)
    with only_run(root):
        tombstones = [_up_to_date(root, found) for found in standing(root)]
        if not tombstones:
            return []
        for found in tombstones:
            if found.state == PLANNED:
                _settle_hidden(root, found)
        gone = Gone.of(tombstones)
        erase_traces(root, gone)
        say(f"{root}: {counted(len(gone.units), 'unit')} to write again")
        erase_units(root, gone)
        erase_companions(root, gone)
        for name in erase_unnamed(root, gone):
            say(f"{root}/{name} could not be read and is removed: it may have held what is forgotten")
        # Whatever reads the corpus from here on finds nothing of it in the units.
        drop_copies(root)
        for found in tombstones:
            write_tombstone(root, _kept(found))
        build_catalog(root)
    return [str(problem) for problem in fsck(root, hashes=False) if problem.severity == "error"]


def _up_to_date(root: Path, tombstone: Tombstone) -> Tombstone:
    """Return a tombstone with what was committed since it was made; it is written before anything is erased."""
    found = with_new_units(root, tombstone)
    if found != tombstone:
        write_tombstone(root, found)
    return found


def _settle_hidden(root: Path, tombstone: Tombstone) -> None:
    drop_copies(root)
    build_catalog(root)
    write_tombstone(root, tombstone.in_state(HIDDEN))


def _kept(tombstone: Tombstone) -> Tombstone:
    """Return what stays of a tombstone when all is erased: hashes only. Ids of imported clips may be names."""
    hashes = tuple(name for name in tombstone.segment_ids if len(name) == 16 and set(name) <= set("0123456789abcdef"))
    return replace(tombstone, state=ERASED, segment_ids=hashes)
