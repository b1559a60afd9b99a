"""DuckDB types of the columns: as DuckDB itself converts the schemas."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pytest

from catalogs.compaction.column_types import column_types, duckdb_type
from catalogs.compaction.units import RECORDS
from catalogs.corpus.schema import SCHEMAS


@pytest.mark.parametrize("kind", [*SCHEMAS, "records"])
def test_types_are_those_of_duckdb(kind: str) -> None:
    schema = {**SCHEMAS, "records": RECORDS}[kind]
    found = duckdb.from_arrow(schema.empty_table())
    # DuckDB quotes the names of fields only where it must.
    own = {name: kind.replace('"', "") for name, kind in column_types(schema).items()}
    assert own == {name: str(kind).replace('"', "") for name, kind in zip(found.columns, found.types, strict=True)}


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(TypeError, match="no DuckDB type for null"):
        duckdb_type(pa.null())
