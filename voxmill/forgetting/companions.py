"""Erasing from what lies beside the units: annotations, duplicates, marks, ledgers of paid passes, pairs of synthetic speech."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from annotators.paid.pass_options import LEDGER
from catalogs.corpus.commit import write_in_corpus
from catalogs.corpus.damage import reading
from catalogs.corpus.duplicates import duplicates_path
from catalogs.corpus.marks import mark_files
from catalogs.corpus.row_files import parquet_bytes
from catalogs.corpus.tombstones import MADE_OF
from catalogs.files import fsync_path
from pipeline.duplicates.mark import work_folder
from pipeline.synthesis.pairs import PAIRS_FILE
from voxmill.forgetting.units import Gone

_KEYS = ("segment_id", "reference_id", *MADE_OF)
"""Columns that name a segment. A row that names a forgotten one is erased."""


def erase_companions(root: Path, gone: Gone) -> None:
    """Erase from everything beside the units. Each file is replaced as a whole, and a second call changes nothing."""
    _erase_duplicates(root, gone)
    for path in sorted((root / "annotations").rglob("*.parquet")):
        if path != duplicates_path(root):
            erase_rows(root, path, gone)
    erase_rows(root, root / PAIRS_FILE, gone)
    for path in mark_files(root):
        _erase_marks(root, path, gone)
    for path in sorted((root / "annotations").glob(f"*/{LEDGER}")):
        _erase_replies(path, gone)


def erase_rows(root: Path, path: Path, gone: Gone) -> None:
    """Write a Parquet file again without the rows that name a forgotten segment; remove it if no row is left."""
    if not path.is_file():
        return
    with reading(path), pq.ParquetFile(path) as file:
        keys = [name for name in file.schema_arrow.names if name in _KEYS]
        stays = _stays(file.read(columns=keys), keys, gone) if keys else None
        if stays is None or pc.all(stays).as_py() in (True, None):
            return
        table = file.read().filter(stays)
    _replace(root, path, table)


def _stays(table: pa.Table, keys: Iterable[str], gone: Gone) -> pa.ChunkedArray:
    found = pa.chunked_array([pa.array([True] * table.num_rows, pa.bool_())])
    for name in keys:
        found = pc.and_(found, pc.invert(pc.is_in(table.column(name).cast(pa.string()), gone.ids)))
    return found


def _replace(root: Path, path: Path, table: pa.Table) -> None:
    if not table.num_rows:
        path.unlink()
        fsync_path(path.parent)
        return
    write_in_corpus(root, path, parquet_bytes(table))


def _erase_duplicates(root: Path, gone: Gone) -> None:
    """Erase from the duplicates. Of copies whose first is gone, the next one is the first. The store of the search is removed, and
    the next `prepare` searches again."""
    shutil.rmtree(work_folder(root), ignore_errors=True)
    path = duplicates_path(root)
    if not path.is_file():
        return
    with reading(path), pq.ParquetFile(path) as file:
        table = file.read()
    rows = table.to_pylist()
    named = [row for row in rows if not gone.segments.isdisjoint(row.values())]
    if not named:
        return
    first: dict[str, str] = {}
    left = []
    for row in rows:
        if row["segment_id"] in gone.segments:
            continue
        of, group = row["duplicate_of"], row["duplicate_group"]
        if of in gone.segments:
            heir = first.setdefault(of, row["segment_id"])
            row |= (
                {"duplicate_of": None, "duplicate_kind": None} if heir == row["segment_id"] else {"duplicate_of": heir}
            )
        if group in gone.segments:
            row["duplicate_group"] = first.setdefault(f"group {group}", row["segment_id"])
        left.append(row)
    again = {b"voxmill": json.dumps({"state": ""}).encode()}
    _replace(root, path, pa.Table.from_pylist(left, schema=table.schema.with_metadata(again)))


def _erase_marks(root: Path, path: Path, gone: Gone) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    left = [line for line in lines if not _is_of(line, gone)]
    if len(left) == len(lines):
        return
    if left:
        write_in_corpus(root, path, b"".join(left))
        return
    path.unlink()
    fsync_path(path.parent)


def _is_of(line: bytes, gone: Gone) -> bool:
    try:
        found = json.loads(line)
    except ValueError:
        # Half a line, or not a mark: nobody reads it, and it may be of anything.
        return True
    return isinstance(found, dict) and found.get("segment_id") in gone.segments


def _erase_replies(path: Path, gone: Gone) -> None:
    """Erase the replies of services about forgotten clips, with their requests' keys. What was spent stays counted.

    A reply about several clips is erased as a whole: the next pass asks about the others again.
    """
    with closing(sqlite3.connect(path, timeout=120.0)) as ledger:
        ledger.execute("pragma secure_delete = on")
        with ledger:
            ledger.execute("create temp table gone (segment text primary key)")
            ledger.executemany("insert into gone values (?)", ((name,) for name in sorted(gone.segments)))
            asked = "select key from clips where segment in (select segment from gone)"
            requests = f"select request from items where key in ({asked})"
            ledger.execute(f"update requests set reply = null, error = null where id in ({requests})")
            ledger.execute(f"delete from items where request in ({requests})")
            ledger.execute("delete from clips where segment in (select segment from gone)")
        ledger.execute("pragma wal_checkpoint(truncate)")
        ledger.execute("vacuum")
        ledger.execute("pragma wal_checkpoint(truncate)")
