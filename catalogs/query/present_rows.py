"""The rows of passes and references in their order of precedence, as Arrow batches in constant memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa

from catalogs.corpus.reader import pass_precedence
from catalogs.corpus.thresholds import load_thresholds
from catalogs.query.damaged import asking
from catalogs.query.row_sources import columns_sql, folder_sql, list_sql
from catalogs.query.views import compacted, present_sources

_BATCH_ROWS = 65_536
_MEMORY = "1GB"


def present_rows(
    root: str | Path, kind: Literal["references", "descriptions", "decoupled"], columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Yield columns of all rows that count at present. Of two rows of a segment that passes made, the later one counts.

    Passes are ordered by `pass_precedence`, their files by name. References are in order of unit.
    """
    import duckdb

    root = Path(root).resolve()
    limits = load_thresholds(root)
    generation = compacted(root, limits)
    passes = {block.group.partition("/")[2] for block in generation.blocks if block.group.startswith("annotations/")}
    ranks = list_sql(sorted(passes, key=pass_precedence))
    order = "unit" if kind == "references" else f"list_position({ranks}, split_part(file, '/', 2)), file"
    with duckdb.connect() as connection, tempfile.TemporaryDirectory(prefix="voxmill-") as folder, asking(root):
        connection.execute(f"SET memory_limit = '{_MEMORY}'")
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET temp_directory = ?", [folder])
        connection.execute(f"CREATE MACRO corpus_folder() AS {folder_sql(root)}")
        source = present_sources(root, generation, limits)[kind]
        yield from connection.sql(
            f"SELECT {columns_sql(columns)} FROM {source} ORDER BY {order}, file_row"
        ).to_arrow_reader(_BATCH_ROWS)
