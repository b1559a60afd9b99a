"""The small corpora of the catalog tests are used here, too; and questions about rows go to one DuckDB."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "catalogs"))

from catalogs.corpus import thresholds


@cache
def _database(pid: int) -> duckdb.DuckDBPyConnection:
    """One in memory for each process: after a fork, its threads are gone."""
    return duckdb.connect()


def _ask(rows: pa.Table, sql: str) -> pa.Table:
    """The result of a query over the table `rows`, as the product's function gives it."""
    with _database(os.getpid()).cursor() as connection:
        connection.register("rows", rows)
        return connection.sql(sql).to_arrow_table()


@pytest.fixture(scope="module", autouse=True)
def one_database() -> Iterator[None]:
    """A pass asks which rows are kept several times, and to start DuckDB takes half of the time of a question.

    tests/catalogs asks with the product's own function.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(thresholds, "_ask", _ask)
        yield
