"""Duplicate segments of a corpus: the same audio, or the same text spoken again by the same voice. Each pass rewrites one file.

annotations/duplicates/all.parquet     one row per segment that is linked to another; other segments have no row
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.corpus.commit import write_in_corpus
from catalogs.corpus.damage import reading
from catalogs.corpus.row_files import parquet_bytes
from catalogs.corpus.schema import DUPLICATES, INDEX, fill
from catalogs.corpus.shards import to_table
from catalogs.corpus.tombstones import hidden, without_hidden

KINDS: tuple[str, ...] = ("exact", "reencode", "part", "same_text")
"""exact: the same decoded samples. reencode: the same audio after a codec, a telephone, a gain or an offset. part: part of the
audio is also in the other (a jingle, an excerpt). same_text: the same text spoken again by the same voice."""

_COLUMNS = [name for name in DUPLICATES.names if name != "segment_id"]


def duplicates_path(root: str | Path) -> Path:
    """Return the path of a corpus' duplicates file."""
    return Path(root) / "annotations" / "duplicates" / "all.parquet"


def read_duplicates(root: str | Path) -> pa.Table:
    """Return the DUPLICATES rows of a corpus; no rows if no pass was made."""
    import pyarrow.parquet as pq

    path = duplicates_path(root)
    if not path.is_file():
        return DUPLICATES.empty_table()
    with reading(path):
        return without_hidden(fill(pq.ParquetFile(path).read(), DUPLICATES), hidden(root))


def duplicates_state(root: str | Path) -> str | None:
    """Return the state (units, settings) that the last pass recorded; None if there was no pass."""
    import pyarrow.parquet as pq

    path = duplicates_path(root)
    if not path.is_file():
        return None
    with reading(path):
        about = (pq.read_schema(path).metadata or {}).get(b"voxmill")
    return json.loads(about)["state"] if about else None


def write_duplicates(root: str | Path, rows: Iterable[Mapping[str, Any]], state: str) -> None:
    """Replace the result of the last pass with `rows` (DUPLICATES columns), atomically."""
    table = to_table(rows, DUPLICATES).replace_schema_metadata({b"voxmill": json.dumps({"state": state}).encode()})
    write_in_corpus(Path(root), duplicates_path(root), parquet_bytes(table))


def with_duplicates(index: pa.Table, duplicates: pa.Table) -> pa.Table:
    """Return the INDEX rows with the duplicate columns of their segments; order and other columns stay."""
    if not duplicates.num_rows:
        return index
    places = {segment: row for row, segment in enumerate(duplicates.column("segment_id").to_pylist())}
    rows = pa.array([places.get(segment) for segment in index.column("segment_id").to_pylist()], pa.int64())
    for name in _COLUMNS:
        found = duplicates.column(name).combine_chunks().take(rows)
        index = index.set_column(index.schema.get_field_index(name), INDEX.field(name), found)
    return index
