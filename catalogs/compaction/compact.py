"""`compact`: bring the compacted files of a corpus up to date, and return them."""

from __future__ import annotations

import atexit
import errno
import functools
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from catalogs.compaction.annotations import annotation_blocks
from catalogs.compaction.draft import Draft
from catalogs.compaction.generation import (
    Block,
    Generation,
    next_number,
    present_generation,
    read_columns,
    retire,
    write_manifest,
)
from catalogs.compaction.gone import write_gone
from catalogs.compaction.judged import Judge
from catalogs.compaction.listing import Listing, listing
from catalogs.compaction.units import unit_blocks
from catalogs.corpus.locks import own_scratch
from catalogs.corpus.repair import COMPACT, drop_compaction
from catalogs.corpus.thresholds import Thresholds, load_thresholds
from catalogs.corpus.tombstones import hidden
from catalogs.files import fsync_path, make_folder

if TYPE_CHECKING:
    import duckdb

_MOST_THREADS = 16
_LEAST_MB, _MB, _MB_PER_THREAD = 400, 200, 50
"""DuckDB's memory. Each thread holds a row group of every column: of a million rows, 2 and 4 threads fit into 400 MB, 32 into 700
and not into 400."""
_TRIES = 5
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
"""Errors of the system for a corpus that may only be read."""


def compact(root: str | Path, limits: Thresholds | None = None, again: bool = False) -> Generation:
    """Return the compacted files of a corpus: the present ones, or new ones if units or annotations have changed since.

    Only what changed is read. For a corpus that cannot be written they are made in a temporary folder, which is removed when the
    process ends. limits: thresholds that new rows are judged by (default: those of the corpus). again: judge rows again that
    other thresholds judged. Raises CorpusError for a damaged record, DamagedFileError or duckdb.Error
    for another damaged file, OSError for a full disk.
    """
    root = Path(root).resolve()
    found, judge = listing(root), Judge(limits or load_thresholds(root))
    try:
        return _compacted(root, root, found, judge, again)
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
    return _compacted(root, _temporary(root), found, judge, again)


def _compacted(root: Path, home: Path, found: Listing, judge: Judge, again: bool) -> Generation:
    for _ in range(_TRIES):
        before = present_generation(home)
        if before is not None and not before.is_there():
            drop_compaction(home)
            before = None
        is_stale = before is not None and again and before.files("index", unlike=judge.key)
        if before is not None and before.state == found.state and not is_stale:
            return before
        with own_scratch(home / "tmp") as scratch:
            made = _made(root, scratch / "draft", found, before, judge, again)
            final = home / COMPACT / f"{next_number(home):08d}"
            make_folder(final.parent)
            try:
                os.rename(scratch / "draft", final)  # noqa: PTH104 - fails if another process has made this number
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                continue
            fsync_path(final.parent)
        retire(home, made.edition)
        return replace(made, folder=final)
    raise RuntimeError(f"other processes compact {root} all the time; try again")


@functools.cache
def _temporary(root: Path) -> Path:
    """Return a folder for the compacted files of a corpus that cannot be written. It lasts as long as the process."""
    folder = Path(tempfile.mkdtemp(prefix="voxmill-"))
    for name in (COMPACT, "tmp"):
        os.mkdir(folder / name)  # noqa: PTH102
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _made(root: Path, folder: Path, found: Listing, before: Generation | None, judge: Judge, again: bool) -> Generation:
    import duckdb

    folder.mkdir()
    if before is not None and (before.fingerprint, before.edition) != (found.fingerprint, found.edition):
        before = None  # Other units count now, and so do other annotations; or some of them are forgotten.
    with duckdb.connect() as connection:
        _limit(connection)
        draft = Draft(root, folder, connection, judge)
        units = unit_blocks(draft, found.units, found.fingerprint, before, again)
        present, other = _settings(draft, units, found)
        notes = annotation_blocks(draft, found.entries, present, other, before)
        gone = write_gone(draft, units, found.fingerprint, hidden(root))
    made = Generation(folder, found.state, found.fingerprint, (*units, *notes), gone, found.edition)
    for kind in folder.iterdir():
        fsync_path(kind)
    write_manifest(folder, made)
    fsync_path(folder)
    return made


def _limit(connection: duckdb.DuckDBPyConnection) -> None:
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    connection.execute(f"SET threads = {threads}")
    connection.execute(f"SET memory_limit = '{max(_LEAST_MB, _MB + threads * _MB_PER_THREAD)}MB'")
    connection.execute("SET enable_progress_bar = false")
    # In order, DuckDB holds what later files yield; the rows have their places beside them.
    connection.execute("SET preserve_insertion_order = false")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"SET temp_directory = '{tempfile.gettempdir()}'")


def _settings(draft: Draft, blocks: list[Block], found: Listing) -> tuple[set[str], set[str]]:
    """Return the units of the present settings and those of others."""
    present: set[str] = set()
    for block in blocks:
        table = read_columns(draft.folder / block.files["units"].path, ["unit_id", "fingerprint"])
        pairs = zip(*(column.to_pylist() for column in table.columns), strict=True)
        present.update(unit for unit, own in pairs if found.fingerprint in (None, own))
    return present, set(found.units) - present
