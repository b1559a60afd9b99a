"""The Arrow schemas of all files of a corpus, made from the declarations in `catalogs.corpus.columns`.

Columns are only added. A file written before a column was added lacks it, and `fill` fills it with null.
"""

from __future__ import annotations

import json

import pyarrow as pa

from catalogs.corpus import columns
from catalogs.corpus.columns import Column

SCHEMA_VERSION = 3
"""Increased when the meaning of a column changes, not when a column is added. 1: development, before the columns of given
transcripts and flags; 2: before those of duplicates, gain, reverberation, edges and clicks."""

COLUMNS: dict[str, tuple[Column, ...]] = {
    # One row per segment that has audio, with audio, word times and the speaker embedding.
    "segments": (*columns.SEGMENT, *columns.HEAVY),
    # One row per segment, kept or rejected, without audio; `shard` and `row` point to the audio.
    "index": (*columns.SEGMENT, *columns.PLACE),
    "recordings": columns.RECORDINGS,
    "references": columns.REFERENCES,
    "quarantine": columns.QUARANTINE,
    "descriptions": columns.DESCRIPTIONS,
    "decoupled": columns.DECOUPLED,
    "duplicates": columns.DUPLICATES,
    "units": columns.UNITS,
    "checks": columns.CHECKS,
    "marks": columns.MARKS,
}
"""The columns of each kind of file, and of the view `units`."""

SCHEMAS = {kind: pa.schema([(column.name, column.type) for column in found]) for kind, found in COLUMNS.items()}
SEGMENTS, INDEX, RECORDINGS, REFERENCES, QUARANTINE, DESCRIPTIONS, DECOUPLED, DUPLICATES, UNITS, CHECKS, MARKS = (
    SCHEMAS.values()
)

COMMITTED_COLUMNS = len({*SEGMENTS.names, *INDEX.names}) + len(RECORDINGS) + len(REFERENCES)
"""Number of columns that a unit commits, stored in its record. If a record has a smaller number or none, its files may lack
columns."""


def required(kind: str) -> set[str]:
    """Return the names of the columns that every file of a kind has."""
    return {column.name for column in COLUMNS[kind] if not column.optional}


def is_readable(found: pa.Schema, kind: str) -> bool:
    """Return True if a schema lacks only optional columns of a kind of file, and its columns have the declared types."""
    types = dict(zip(found.names, found.types, strict=True))
    return required(kind) <= types.keys() and all(types.get(c.name, c.type) == c.type for c in COLUMNS[kind])


def fill(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the columns of `schema` in its order, null if the table lacks one. Raises ArrowInvalid if a cast fails."""
    have = set(table.schema.names)
    filled = [table.column(f.name) if f.name in have else pa.nulls(table.num_rows, f.type) for f in schema]
    return pa.table(filled, names=schema.names).cast(schema)


def segments_schema(fingerprint: str) -> pa.Schema:
    """Return `SEGMENTS` with the metadata of a shard: schema version, fingerprint, and the `datasets` Audio feature."""
    features: dict[str, object] = {
        name: feature_of(kind) for name, kind in zip(SEGMENTS.names, SEGMENTS.types, strict=True)
    }
    features["audio"] = {"_type": "Audio"}
    return SEGMENTS.with_metadata(
        {
            b"voxmill": json.dumps({"schema_version": SCHEMA_VERSION, "fingerprint": fingerprint}).encode(),
            b"huggingface": json.dumps({"info": {"features": features}}).encode(),
        }
    )


def feature_of(kind: pa.DataType) -> object:
    """Return the `datasets` feature of an Arrow type."""
    if pa.types.is_list(kind):
        return {"feature": feature_of(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {kind.field(i).name: feature_of(kind.field(i).type) for i in range(kind.num_fields)}
    names = {
        pa.float32(): "float32",
        pa.float64(): "float64",
        pa.int32(): "int32",
        pa.int64(): "int64",
        pa.bool_(): "bool",
        pa.binary(): "binary",
    }
    return {"dtype": names.get(kind, "string"), "_type": "Value"}
