"""Texts and descriptions in lower case, held in memory: to decompress them for each search would take longer than the search."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pyarrow as pa

from catalogs.browse.catalog import Catalog
from catalogs.query.views import QueryError

if TYPE_CHECKING:
    import duckdb

_SAID = (
    "SELECT segment_id, lower(text) AS said FROM segments WHERE text IS NOT NULL "
    "UNION ALL SELECT segment_id, lower(concat_ws(' ', \"full\", brief, style, persona)) FROM descriptions WHERE status = 'ok'"
)
_CORRECTED = "SELECT segment_id, lower(text) FROM marks WHERE counts AND text IS NOT NULL"
_LARGEST = 300 << 20
"""Bytes that are held at most. A larger corpus is searched on the disk."""
_BATCH_ROWS = 65_536


class Texts:
    """What can be searched. It is read in the background; until then, searches read the files."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog, self._table, self._of = catalog, None, -1
        self._lock = threading.Lock()

    def read_ahead(self) -> None:
        """Begin to read what can be searched, unless it was read since the catalog was opened."""
        if self._of != self._catalog.opened and self._lock.acquire(blocking=False):
            # Not at once: the page asks for its first clip now.
            waiting = threading.Timer(0.5, self._read)
            waiting.daemon = True
            waiting.start()

    def _read(self) -> None:
        try:
            opened = self._catalog.opened
            batches, size = [], 0
            try:
                with self._catalog.cursor() as connection:
                    for batch in connection.sql(_SAID).to_arrow_reader(_BATCH_ROWS):
                        batches.append(batch)
                        size += batch.nbytes
                        if size > _LARGEST:
                            batches.clear()
                            break
            except QueryError:
                return  # The next search reads the files, and says what is wrong.
            self._table = pa.Table.from_batches(batches) if batches else None
            self._of = opened
        finally:
            self._lock.release()

    def matching(self, connection: duckdb.DuckDBPyConnection) -> str:
        """Return SQL for the ids of the segments that contain `?`, in lower case, in a text or description."""
        source = f"({_SAID})"
        if self._table is not None and self._of == self._catalog.opened:
            connection.register("said_before", self._table)
            source = "said_before"
        return f"SELECT segment_id FROM (FROM {source} UNION ALL {_CORRECTED}) WHERE contains(said, lower(?))"
