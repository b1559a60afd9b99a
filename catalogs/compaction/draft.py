"""Making a generation: files are written into a draft by DuckDB, or linked from the generation before."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from catalogs.compaction.column_types import column_types
from catalogs.compaction.generation import Block, CompactFile, Generation
from catalogs.compaction.judged import Judge
from catalogs.corpus.schema import SCHEMAS
from catalogs.files import file_sha256, fsync_path

if TYPE_CHECKING:
    import duckdb

BLOCK_ROWS = 1_000_000
"""Rows at which a block is full."""
SMALL_BLOCKS = 8
"""Number of blocks of one group that are less than a quarter full: more are merged."""
_GROUP_ROWS = 122_880
"""Rows of a row group, which DuckDB reads by one thread."""


class Draft:
    """The folder of a generation that is being made, and the connection that makes it."""

    def __init__(self, root: Path, folder: Path, connection: duckdb.DuckDBPyConnection, judge: Judge) -> None:
        self.root, self.folder, self.connection, self.judge = root, folder, connection, judge
        self._types = {kind: column_types(schema) for kind, schema in SCHEMAS.items()}

    def copy(self, kind: str, name: str, select: str) -> CompactFile | None:
        """Write the rows of a SELECT to `<kind>/<name>.parquet`; return None, and write nothing, if there are none.

        Raises duckdb.Error for files that cannot be read.
        """
        import duckdb

        path = self._path(kind, name)
        copy = (
            f"COPY ({select}) TO {quoted(str(path))} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {_GROUP_ROWS})"
        )
        try:
            self.connection.execute(copy)
        except duckdb.OutOfMemoryException:
            # Each thread holds a row group of every column, and rows may be longer than usual.
            self.connection.execute("SET threads = 1")
            self.connection.execute(copy)
        return self._written(path)

    def write(self, kind: str, name: str, table: pa.Table) -> CompactFile | None:
        """Write a table; None, and nothing is written, without rows."""
        import pyarrow.parquet as pq

        path = self._path(kind, name)
        pq.write_table(table, path, compression="zstd", row_group_size=_GROUP_ROWS)
        return self._written(path)

    def link(self, block: Block, before: Generation, again: bool = False) -> Block:
        """Take over the files of a block of the generation before. again: judge its index by the present thresholds."""
        if again and "index" in block.files and block.judged != self.judge.key:
            source = f"read_parquet({quoted(str(before.folder / block.files['index'].path))})"
            index = self.copy("index", block.name, self.judge.judged(source, is_judged=True))
            assert index is not None
            self.link(
                replace(block, files={kind: file for kind, file in block.files.items() if kind != "index"}), before
            )
            return replace(block, files={**block.files, "index": index}, judged=self.judge.key)
        for kind, file in block.files.items():
            path = self._path(kind, block.name)
            try:
                os.link(before.folder / file.path, path)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK):
                    raise
                shutil.copyfile(before.folder / file.path, path)
                fsync_path(path)
        return block

    def typed(self, kind: str, have: Iterable[str] | None = None) -> str:
        """Return the columns of a kind for a SELECT, with their types. have: those that the source has; others are null."""
        known = self._types[kind].items()
        there = None if have is None else set(have)
        return ", ".join(
            f'CAST("{name}" AS {type_}) AS "{name}"'
            if there is None or name in there
            else f'CAST(NULL AS {type_}) AS "{name}"'
            for name, type_ in known
        )

    def _path(self, kind: str, name: str) -> Path:
        folder = self.folder / kind
        folder.mkdir(exist_ok=True)
        return folder / f"{name}.parquet"

    def _written(self, path: Path) -> CompactFile | None:
        import pyarrow.parquet as pq

        rows = pq.read_metadata(path).num_rows
        if not rows:
            path.unlink()
            return None
        fsync_path(path)
        return CompactFile(path.relative_to(self.folder).as_posix(), rows, path.stat().st_size, file_sha256(path))


def merge(draft: Draft, blocks: Sequence[Block]) -> list[Block]:
    """Merge small blocks of one group into larger ones if there are too many; return the blocks that hold all rows."""
    small = [block for block in blocks if block.rows < BLOCK_ROWS // 4]
    if len(small) <= SMALL_BLOCKS:
        return list(blocks)
    found = [block for block in blocks if block not in small]
    for part in _parts(small):
        files = {}
        for kind in dict.fromkeys(kind for block in part for kind in block.files):
            paths = [str(draft.folder / block.files[kind].path) for block in part if kind in block.files]
            # Some may be of an older version, without the columns that were added since.
            source = f"read_parquet({list_sql(paths)}, union_by_name = true)"
            select = draft.judge.judged(source, is_judged=True) if kind == "index" else f"FROM {source}"
            file = draft.copy(kind, f"{part[0].name}m", select)
            assert file is not None
            files[kind] = file
        members = sum(block.members for block in part)
        found.append(Block(f"{part[0].name}m", part[0].group, members, files, part[0].loose, draft.judge.key))
        for block in part:
            for file in block.files.values():
                (draft.folder / file.path).unlink()
    return found


def _parts(blocks: Sequence[Block]) -> list[list[Block]]:
    parts: list[list[Block]] = [[]]
    for block in blocks:
        if parts[-1] and sum(one.rows for one in parts[-1]) + block.rows > BLOCK_ROWS:
            parts.append([])
        parts[-1].append(block)
    return parts


def list_sql(texts: Iterable[str]) -> str:
    """Return an SQL list of strings."""
    return "[" + ", ".join(quoted(text) for text in texts) + "]"


def quoted(text: str) -> str:
    """Return an SQL string."""
    return "'" + text.replace("'", "''") + "'"
