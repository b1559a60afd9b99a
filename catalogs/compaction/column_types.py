"""The DuckDB types of Arrow types, as SQL. DuckDB's own conversion of an Arrow table imports pandas, which takes half a second."""

from __future__ import annotations

import pyarrow as pa

_PLAIN = {
    pa.string(): "VARCHAR",
    pa.large_string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.bool_(): "BOOLEAN",
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT",
    pa.uint16(): "USMALLINT",
    pa.uint32(): "UINTEGER",
    pa.uint64(): "UBIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.date32(): "DATE",
    pa.timestamp("us"): "TIMESTAMP",
}


def column_types(schema: pa.Schema) -> dict[str, str]:
    """Return the DuckDB type of each column. Raises TypeError for a type that no file of a corpus has."""
    return {field.name: duckdb_type(field.type) for field in schema}


def duckdb_type(kind: pa.DataType) -> str:
    """Return the DuckDB type of an Arrow type. Raises TypeError for a type that no file of a corpus has."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return "TIMESTAMP WITH TIME ZONE"
    if pa.types.is_list(kind):
        return f"{duckdb_type(kind.value_type)}[]"
    if pa.types.is_map(kind):
        return f"MAP({duckdb_type(kind.key_type)}, {duckdb_type(kind.item_type)})"
    if pa.types.is_struct(kind):
        fields = (kind.field(at) for at in range(kind.num_fields))
        return f"STRUCT({', '.join(f'{_quoted(field.name)} {duckdb_type(field.type)}' for field in fields)})"
    raise TypeError(f"no DuckDB type for {kind}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
