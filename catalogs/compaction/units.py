"""Blocks of units: their records as rows, and the rows of their files with a column `unit`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from sys import intern
from typing import Any

import pyarrow as pa

from catalogs.compaction.draft import BLOCK_ROWS, Draft, list_sql, merge, quoted
from catalogs.compaction.generation import Block, CompactFile, Generation, read_columns
from catalogs.compaction.plain_arrays import plain_table
from catalogs.corpus.commit import read_record, record_path
from catalogs.corpus.ids import short_hash
from catalogs.corpus.schema import COMMITTED_COLUMNS

KINDS = ("index", "recordings", "references", "quarantine")
_BLOCK_UNITS = 20_000
"""Units at which a block is full, however few rows they have."""

RECORDS = pa.schema(
    [
        ("unit_id", pa.string()),
        ("fingerprint", pa.string()),
        ("generation", pa.int32()),
        ("session_ids", pa.list_(pa.string())),
        ("source_ids", pa.list_(pa.string())),
        ("segments", pa.int64()),
        ("seconds", pa.float64()),
        ("at", pa.timestamp("us", tz="UTC")),
        ("busy_s", pa.map_(pa.string(), pa.float64())),
    ]
)
"""What queries and resumed runs need of the commit records, as rows."""


def unit_blocks(
    draft: Draft, units: Collection[str], fingerprint: str | None, before: Generation | None, again: bool = False
) -> list[Block]:
    """Return the blocks that hold these units: those of the generation before whose units are all there, and new ones.

    Rows of units of other settings than `fingerprint` are left out (None: of none). again: judge rows again that other thresholds
    judged. Raises CorpusError for a damaged record and
    duckdb.Error for a damaged file.
    """
    wanted = set(units)
    kept: list[Block] = []
    for block in () if before is None else before.blocks:
        if block.group == "":
            assert before is not None
            members = _members(before, block)
            if members <= wanted:
                kept.append(draft.link(block, before, again))
                wanted -= members
    for records in _batches(draft.root, sorted(wanted)):
        kept.append(_block(draft, records, fingerprint))
    return merge(draft, kept)


def _members(before: Generation, block: Block) -> set[str]:
    path = before.folder / block.files["units"].path
    return set(read_columns(path, ["unit_id"]).column(0).to_pylist())


def _batches(root: Path, units: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Yield the records of units, each as `_row` has it, as many as fill a block."""
    found: list[dict[str, Any]] = []
    rows = 0
    for unit in units:
        found.append(_row(read_record(root, record_path(root, unit))))
        rows += found[-1]["segments"]
        if rows >= BLOCK_ROWS or len(found) >= _BLOCK_UNITS:
            yield found
            found, rows = [], 0
    if found:
        yield found


def _block(draft: Draft, records: list[dict[str, Any]], fingerprint: str | None) -> Block:
    name = short_hash("units", *(record["unit_id"] for record in records))
    files: dict[str, CompactFile] = {}
    written = draft.write("units", name, records_table(records))
    assert written is not None
    files["units"] = written
    present = [record for record in records if fingerprint in (None, record["fingerprint"])]
    for kind in KINDS:
        file = _copy(draft, kind, name, present)
        if file is not None:
            files[kind] = file
    return Block(name, "", len(records), files, judged=draft.judge.key)


def _copy(draft: Draft, kind: str, name: str, records: Sequence[Mapping[str, Any]]) -> CompactFile | None:
    """Copy the rows of one kind. Files from before a column was added are read apart: DuckDB opens each to find out."""
    selects = []
    for complete in (True, False):
        paths = [
            str(draft.root / path)
            for record in records
            if (record["is_complete"] and kind != "quarantine") == complete
            for own, path in record["files"]
            if own == kind
        ]
        if paths:
            by_name = "" if complete else ", union_by_name = true"
            selects.append(
                _select(
                    draft, kind, f"read_parquet({list_sql(paths)}, filename = true, file_row_number = true{by_name})"
                )
            )
    if not selects:
        return None
    select = " UNION ALL ".join(selects)
    return draft.copy(kind, name, draft.judge.judged(f"({select})") if kind == "index" else select)


def _select(draft: Draft, kind: str, source: str) -> str:
    # The name of a unit's file is <unit>.<sha256, 8 digits>.parquet.
    unit = f"regexp_replace(parse_filename(filename), {quoted('[.][^.]*[.]parquet$')}, '') AS unit"
    have = draft.connection.sql(f"SELECT * FROM {source} LIMIT 0").columns if "union_by_name" in source else None
    return f"SELECT {draft.typed(kind, have)}, {unit}, file_row_number AS file_row FROM {source}"


def records_table(records: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return commit records, as `_row` has them, as rows of `RECORDS`."""
    return plain_table({name: [record[name] for record in records] for name in RECORDS.names}, RECORDS)


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a block needs of a record: whole ones of 20,000 units would be most of the memory that is not DuckDB's."""
    busy = record.get("stats", {}).get("busy_s", {})
    return {
        "unit_id": record["unit_id"],
        "fingerprint": record["fingerprint"],
        "generation": record.get("generation") or 0,
        "session_ids": record["session_ids"],
        "source_ids": record["source_ids"],
        "segments": record["segments"],
        "seconds": record["seconds"],
        "at": datetime.fromisoformat(record["at"]),
        "busy_s": [(intern(stage), float(seconds)) for stage, seconds in busy.items()],
        "is_complete": record.get("columns") == COMMITTED_COLUMNS,
        "files": [(intern(file["kind"]), file["path"]) for file in record["files"]],
    }
