"""Rows of a run: Parquet part files that are only ever added, and are complete or absent.

A table is a folder of part files below `rows/`. A row is known by item_id and seed. Of a row that is written twice the newest
counts: a figure of several takes is written again when takes are added. A metric's row says what it was computed from.
"""

from __future__ import annotations

import io
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from catalogs.files import one_line, write_atomically
from evaluation.errors import EvaluationError

STATUSES = ("ok", "empty", "silent", "too_long", "timeout", "error")
"""`ok`, or why a take failed: no samples, no sound, stopped by the length limit, no answer in time, an error."""

KEY = (pa.field("item_id", pa.string(), nullable=False), pa.field("seed", pa.int32(), nullable=False))

GENERATE = pa.schema(
    [
        *KEY,
        pa.field("status", pa.string()),
        pa.field("error", pa.string()),
        pa.field("seconds", pa.float64()),
        pa.field("wall_s", pa.float64()),
        pa.field("first_audio_s", pa.float64()),
        pa.field("attempts", pa.int32()),
        pa.field("audio", pa.string()),
        pa.field("sample_rate", pa.int32()),
        pa.field("audio_sha256", pa.string()),
        pa.field("notes", pa.string()),
    ]
)
"""Columns of rows/generate. `seconds`: of audio. `audio`: path below the run folder. `notes`: JSON of the system."""

MADE_OF = "made_of"
"""Column of a metric's rows: the token of what a row was computed from (`evaluation.runs.tokens`). Rows that were written before
there were tokens have none."""

Key = tuple[str, int]


def metric_schema(schema: pa.Schema) -> pa.Schema:
    """Return a metric's schema with the key and the token before it."""
    return pa.schema([*KEY, pa.field(MADE_OF, pa.string()), *schema])


class Table:
    """A folder of part files with one schema."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.folder = folder
        self.schema = schema

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows as one part file; it is on the disk when this returns."""
        if not rows:
            return
        table = pa.Table.from_pylist([dict(row) for row in rows], schema=self.schema)
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        newest = max((_stamp(part) for part in self.folder.glob("part-*-*.parquet")), default=0)
        # Later parts sort later, even if the clock was set back.
        stamp = max(time.time_ns(), newest + 1)
        write_atomically(self.folder / f"part-{stamp:020d}-{uuid.uuid4().hex[:8]}.parquet", sink.getvalue())

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield every row once; of two with one key, the newest."""
        seen: set[Key] = set()
        for part in self._parts():
            for row in _read(part):
                key = (row["item_id"], row["seed"])
                if key not in seen:
                    seen.add(key)
                    yield row

    def written(self) -> dict[Key, int]:
        """Return when the newest row of each key was written, in ns since 1970."""
        found: dict[Key, int] = {}
        for part in self._parts():
            for row in _read(part, [field.name for field in KEY]):
                found.setdefault((row["item_id"], row["seed"]), _stamp(part))
        return found

    def _parts(self) -> list[Path]:
        """Return the part files, the newest first."""
        return sorted(self.folder.glob("part-*.parquet"), reverse=True)

    def by_key(self) -> dict[Key, dict[str, Any]]:
        """Return the rows by item_id and seed."""
        return {(row["item_id"], row["seed"]): row for row in self.rows()}


def _read(part: Path, columns: list[str] | None = None) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = pq.read_table(part, columns=columns).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise EvaluationError(
            f"{part} is damaged ({one_line(error)}); delete it and run the same command again"
        ) from None
    return rows


def _stamp(part: Path) -> int:
    """Return when a part file was written, in ns since 1970: part-<stamp>-<random>.parquet."""
    return int(part.name.split("-")[1])
