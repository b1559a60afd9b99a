"""The answer of a query batch by batch, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from catalogs.query.damaged import DamagedCompactionError, refuse_damage
from catalogs.query.views import QueryError, asked, connect, explain

BATCH_ROWS = 8192


@contextmanager
def streamed(
    root: str | Path, sql: str, parameters: Mapping[str, str] | None = None, limit: int | None = None
) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """Yield (columns, batches of rows) of one SELECT over the catalog's views. parameters: the texts of its `$name`. limit: the
    most rows.

    DuckDB computes the next batch when it is asked for. Raises QueryError with a one-line message, also while batches are read.
    """
    try:
        stream = _started(root, sql, parameters, limit)
    except DamagedCompactionError:
        stream = _started(root, sql, parameters, limit)  # The damaged copies are removed: they are made again.
    with stream:
        yield stream.schema, stream.batches()


def _started(root: str | Path, sql: str, parameters: Mapping[str, str] | None, limit: int | None) -> _Stream:
    """Return a stream whose first batch is there: most damage and most errors show before anything is written."""
    stream = _Stream(root, sql, parameters, limit)
    try:
        stream.start()
    except BaseException:
        stream.close()
        raise
    return stream


class _Stream:
    def __init__(self, root: str | Path, sql: str, parameters: Mapping[str, str] | None, limit: int | None) -> None:
        self._root, self._sql, self._parameters, self._rest = root, sql, parameters, limit
        self._connection = connect(root)
        self._first: list[pa.RecordBatch] = []

    def start(self) -> None:
        found = asked(self._root, self._connection, self._sql, self._parameters)
        with self._explaining():
            self._reader: pa.RecordBatchReader = found.to_arrow_reader(BATCH_ROWS)
            self.schema: pa.Schema = self._reader.schema
            self._first = self._next()

    def batches(self) -> Iterator[pa.RecordBatch]:
        waiting = self._first
        while waiting:
            batch = waiting[0] if self._rest is None else waiting[0].slice(0, self._rest)
            if self._rest is not None:
                self._rest -= batch.num_rows
            yield batch
            if self._rest == 0:
                return
            with self._explaining():
                waiting = self._next()

    def _next(self) -> list[pa.RecordBatch]:
        try:
            return [self._reader.read_next_batch()]
        except StopIteration:
            return []

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            refuse_damage(self._root, error)
            raise QueryError(explain(self._connection, error)) from None

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()
