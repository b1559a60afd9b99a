"""Rows that newer attempts at their sources replace (`catalogs.corpus.attempts`), found in the compacted records, and rows that
are to be forgotten (`catalogs.corpus.tombstones`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.compaction.draft import Draft, list_sql, quoted
from catalogs.compaction.generation import Block, CompactFile, read_columns
from catalogs.corpus.attempts import older_sources
from catalogs.corpus.tombstones import NOTHING, Hidden

_NAME = "all"
_PAIRS = pa.schema([("unit", pa.string()), ("source_id", pa.string())])


def write_gone(
    draft: Draft, blocks: Sequence[Block], fingerprint: str | None, forgotten: Hidden = NOTHING
) -> dict[str, CompactFile]:
    """Write which units, sources of units and segments of units do not count. Nearly always there are none, and no files."""
    records = _listed(draft, _paths(draft.folder, blocks, "units"), fingerprint, forgotten)
    older = older_sources(records, gone=forgotten.sources)
    if not older and not forgotten:
        return {}
    whole = [r["unit_id"] for r in records if older.get(r["unit_id"]) == set(r["source_ids"])]
    pairs = [(unit, source) for unit, sources in sorted(older.items()) for source in sorted(sources)]
    found = {
        "gone_units": draft.write("gone_units", _NAME, pa.table({"unit": pa.array(whole, pa.string())})),
        "gone_sources": draft.write(
            "gone_sources",
            _NAME,
            pa.table({"unit": [unit for unit, _ in pairs], "source_id": [name for _, name in pairs]}, schema=_PAIRS),
        ),
        "gone_forgotten": draft.write("gone_forgotten", _NAME, pa.table({"segment_id": forgotten.ids})),
    }
    index = _paths(draft.folder, blocks, "index")
    if index:
        keys = {"gone_sources": "unit, source_id", "gone_forgotten": "segment_id"}
        written = {kind: list_sql([str(draft.folder / file.path)]) for kind in keys if (file := found[kind])}
        found["gone_segments"] = draft.copy(
            "gone_segments",
            _NAME,
            " UNION ".join(
                f"SELECT rows.unit, rows.segment_id FROM read_parquet({list_sql(index)}) AS rows "
                f"SEMI JOIN read_parquet({gone}) AS gone USING ({keys[kind]})"
                for kind, gone in written.items()
            ),
        )
    return {kind: file for kind, file in found.items() if file is not None}


def _listed(draft: Draft, units: Sequence[str], fingerprint: str | None, forgotten: Hidden) -> list[dict[str, Any]]:
    """Return the records that list a source which another record of the same settings lists too, or which is forgotten."""
    if not units or not (forgotten.sources or _are_listed_twice(units)):
        return []
    sources = list_sql(sorted(forgotten.sources))
    own = "" if fingerprint is None else f"WHERE fingerprint = {quoted(fingerprint)}"
    rows = draft.connection.execute(
        f"""
        WITH records AS (FROM read_parquet({list_sql(units)}) {own}),
        listed AS (SELECT unit_id, unnest(list_distinct(source_ids)) AS source FROM records),
        twice AS (SELECT source FROM listed GROUP BY source HAVING count(*) > 1)
        SELECT unit_id, generation, CAST("at" AS VARCHAR) AS at, source_ids FROM records
        WHERE unit_id IN (
            SELECT unit_id FROM listed WHERE source IN (FROM twice) OR list_contains(CAST({sources} AS VARCHAR[]), source)
        )
        """
    ).fetchall()
    return [dict(zip(("unit_id", "generation", "at", "source_ids"), row, strict=True)) for row in rows]


def _are_listed_twice(units: Sequence[str]) -> bool:
    """Return False if no source is listed twice, whatever the settings. DuckDB would take ten times as long to say so."""
    import pyarrow.compute as pc

    lists = [read_columns(Path(path), ["source_ids"]).column(0) for path in units]
    sources = pa.chunked_array([pc.list_flatten(chunk) for column in lists for chunk in column.chunks], pa.string())
    return bool(pc.count_distinct(sources).as_py() < len(sources))


def _paths(folder: Path, blocks: Sequence[Block], kind: str) -> list[str]:
    return [str(folder / block.files[kind].path) for block in blocks if block.group == "" and kind in block.files]
