"""Checks of one unit: its tables agree, and every second of its recordings is accounted for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.corpus.schema import is_readable

_TOLERANCE_S = 0.05
KINDS = ("segments", "index", "recordings", "references", "quarantine")


@dataclass(frozen=True)
class Problem:
    """A finding of fsck.

    `severity`: `error` (the corpus is not whole), `notice` (nothing is lost) or `repaired` (`--repair` fixed it).
    """

    severity: str
    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.path}: {self.what}"


def read_file(path: Path, kind: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a file of a unit, all columns or some; of a shard only the ids. Raises ArrowInvalid or OSError if it is not readable."""
    import pyarrow.parquet as pq

    if kind == "segments":
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        _check_schema(table.schema, kind)
        return table.select(["segment_id"])
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        _check_schema(schema, kind)
        wanted = None if columns is None else [name for name in columns if name in schema.names]
        return file.read(columns=wanted, use_threads=False)


def _check_schema(schema: pa.Schema, kind: str) -> None:
    if not is_readable(schema, kind):
        raise pa.ArrowInvalid("does not have the columns of this corpus format")


def check_audio(record: dict[str, Any], index: pa.Table, shard: pa.Table | None) -> list[Problem]:
    """Check that every index row with audio points to the shard row with the same segment id."""
    names = [file["path"] for file in record["files"] if file["kind"] == "segments"]
    if shard is not None and _in_order(names, index, shard):
        return []
    ids = shard.column("segment_id").to_pylist() if shard is not None else []
    pointed = 0
    problems = []
    rows = zip(*(index.column(name).to_pylist() for name in ("segment_id", "shard", "row")), strict=True)
    for segment, shard_name, row in rows:
        if shard_name is None:
            continue
        pointed += 1
        if shard is not None and (shard_name not in names or row >= len(ids) or ids[row] != segment):
            problems.append(Problem("error", f"segment {segment}", f"is not at row {row} of {shard_name}"))
    if shard is not None and pointed != len(ids) and not problems:
        problems.append(Problem("error", names[0], f"holds {len(ids)} clips but the index points at {pointed}"))
    return problems


def _in_order(names: list[str], index: pa.Table, shard: pa.Table) -> bool:
    """Return True if the rows with audio point at all rows of the only shard in order, as a commit writes them."""
    import pyarrow.compute as pc

    own = index.select(["segment_id", "shard", "row"]).filter(pc.is_valid(index.column("shard")))
    if len(names) != 1 or own.num_rows != shard.num_rows:
        return False
    rows = own.column("row").to_pylist() == list(range(shard.num_rows))
    return rows and set(own.column("shard").to_pylist()) <= set(names) and own.column(0).equals(shard.column(0))


def check_seconds(index: pa.Table, recordings: pa.Table) -> list[Problem]:
    """Check that duration_s = silence_s + the sum of the recording's segments. Quarantined recordings are not checked."""
    spoken: dict[str, float] = defaultdict(float)
    for source, duration in zip(
        index.column("source_id").to_pylist(), index.column("duration_s").to_pylist(), strict=True
    ):
        spoken[source] += duration or 0.0
    problems = []
    for row in recordings.select(["source_id", "path", "duration_s", "silence_s", "status"]).to_pylist():
        if row["status"] == "quarantined":
            continue
        account = (row["silence_s"] or 0.0) + spoken[row["source_id"]]
        lost = (row["duration_s"] or 0.0) - account
        if abs(lost) > _TOLERANCE_S:
            what = f"{lost:+.2f} s of {row['duration_s']:.2f} s are in neither a segment nor silence"
            problems.append(Problem("error", row["path"] or row["source_id"], what))
    known = set(recordings.column("source_id").to_pylist())
    problems += [
        Problem("error", f"source {source}", "has segments but no recording")
        for source in spoken
        if source not in known
    ]
    return problems
