"""The catalog as the page reads it: read-only, with a bound on memory and time, and kept up to date."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogs.corpus.marks import mark_files
from catalogs.query.views import QueryError, connect, explain

if TYPE_CHECKING:
    import duckdb

_MEMORY = "400MB"
_AGE_S = 30.0
"""Age of a catalog at which a page that is opened looks for what is new."""


class SlowQueryError(QueryError):
    """A query was stopped because it took too long."""


class Catalog:
    """Connections to the catalog for the threads of a server.

    timeout_s: seconds after which a query is interrupted.
    """

    def __init__(self, root: Path, timeout_s: float = 10.0) -> None:
        self.root, self.timeout_s = root, timeout_s
        self._lock, self._busy, self._asked = threading.Condition(), 0, time.monotonic()
        self._slots = threading.BoundedSemaphore(4)
        self._connection: duckdb.DuckDBPyConnection | None = None
        self.opened = 0
        """How often the catalog was opened: what was read of it before is out of date if this differs."""
        self._reopen()

    def refresh(self) -> None:
        """Take up what was committed or annotated since. Does nothing while queries run or if this was just done."""
        with self._lock:
            if not self._busy and time.monotonic() - self._asked > _AGE_S:
                self._reopen()

    def _reopen(self) -> None:
        # DuckDB gives every connection of a process to one path the same database, also if its file was replaced.
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._has_marks = bool(mark_files(self.root))
        self._connection = connect(self.root, memory=_MEMORY)
        self._asked = time.monotonic()
        self.opened += 1

    def close(self) -> None:
        """Wait for queries and close."""
        with self._lock:
            self._lock.wait_for(lambda: not self._busy, timeout=self.timeout_s)
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Lend a connection. What it asks is interrupted after `timeout_s`. Raises QueryError with one line for DuckDB's errors."""
        import duckdb

        with self._slots:
            with self._lock:
                # The views of a corpus without marks look for none. With the first one, there are other views.
                if self._connection is None or (not self._has_marks and mark_files(self.root)):
                    self._lock.wait_for(lambda: not self._busy)
                    self._reopen()
                assert self._connection is not None
                own = self._connection.cursor()
                self._busy += 1
            stop = threading.Timer(self.timeout_s, own.interrupt)
            stop.daemon = True
            stop.start()
            try:
                yield own
            except duckdb.InterruptException:
                raise SlowQueryError(f"the query took more than {self.timeout_s:g} s and was stopped") from None
            except (duckdb.Error, UnicodeError) as error:
                # A compacted file that was replaced more than a day ago is gone: the next query opens the present ones.
                with self._lock:
                    self._asked -= _AGE_S
                raise QueryError(explain(own, error)) from None
            finally:
                stop.cancel()
                own.close()
                with self._lock:
                    self._busy -= 1
                    self._lock.notify_all()

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Return all rows of a query of ours by column name."""
        with self.cursor() as own:
            return rows_of(own, sql, values)


def rows_of(connection: duckdb.DuckDBPyConnection, sql: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
    """Return all rows of a query by column name."""
    found: list[dict[str, Any]] = connection.sql(sql, params=list(values) or None).to_arrow_table().to_pylist()
    return found
