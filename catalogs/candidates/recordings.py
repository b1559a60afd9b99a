"""The recordings that the rows of a candidate table are from, for the lineage of what is trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from catalogs.candidates.table import RECORDINGS, Table
from catalogs.corpus.reader import Corpus
from catalogs.query.damaged import asking
from catalogs.query.views import connect

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

_ROWS = 65_536
_ABOUT = "content_sha256, session_id, license, consent, duration_s"

SCHEMA = pa.schema(
    [
        ("part", pa.int64()),
        ("source_id", pa.string()),
        ("content_sha256", pa.string()),
        ("session_id", pa.string()),
        ("license", pa.string()),
        ("consent", pa.string()),
        ("seconds", pa.float64()),
    ]
)
"""part: number of the corpus among those of the table."""

RECORDING_TABLES = """
CREATE TABLE recordings (source_id VARCHAR, content_sha256 VARCHAR, session_id VARCHAR, license VARCHAR, consent VARCHAR,
    seconds DOUBLE, part BIGINT);
CREATE TABLE owners (segment_id VARCHAR, source_id VARCHAR, part BIGINT);
"""
RECORDING_JOINS = """
CREATE TABLE heard AS
SELECT row_number() OVER (ORDER BY part, source_id) - 1 AS n, part, source_id
FROM (SELECT part, source_id FROM rows UNION SELECT part, source_id FROM owners);
"""
"""`heard`: the recordings, numbered. `owners`: the recording of each segment whose description or text synthetic speech has."""
_OWNERS = "SELECT segment_id, source_id FROM segments WHERE segment_id IN (SELECT segment_id FROM wanted)"
_USED = "SELECT described_id AS segment_id FROM decoupled UNION SELECT text_id FROM decoupled"
_FROM_ROWS = f"""
INSERT INTO owners SELECT segment_id, source_id, part FROM kept
WHERE segment_id IN ({_USED}) QUALIFY row_number() OVER (PARTITION BY segment_id ORDER BY part) = 1
"""
_MISSING = f"""
SELECT segment_id FROM ({_USED}) WHERE segment_id IS NOT NULL AND segment_id NOT IN (SELECT segment_id FROM owners)
"""
_WRITTEN = """
SELECT heard.part, heard.source_id, content_sha256, session_id, license, consent, seconds FROM heard
LEFT JOIN (SELECT * FROM recordings QUALIFY row_number() OVER (PARTITION BY part, source_id) = 1) AS known
    ON known.part = heard.part AND known.source_id = heard.source_id
ORDER BY heard.n
"""


def read_recordings(connection: duckdb.DuckDBPyConnection, parts: Sequence[Corpus]) -> None:
    """Insert the recordings of all corpora, and the recording of each segment that synthetic speech was made from, kept or not."""
    connection.execute(_FROM_ROWS)
    for number, part in enumerate(parts):
        missing: pa.Table = connection.sql(_MISSING).to_arrow_table()
        with connect(part.path) as catalog, asking(part.path):
            for batch in catalog.sql(f"SELECT source_id, {_ABOUT} FROM recordings").to_arrow_reader(_ROWS):
                _insert(connection, "recordings", batch, number)
            if len(missing):
                catalog.register("wanted", missing)
                for batch in catalog.sql(_OWNERS).to_arrow_reader(_ROWS):
                    _insert(connection, "owners", batch, number)


def write_recordings(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Write recordings.parquet in the order of their numbers."""
    with pq.ParquetWriter(folder / RECORDINGS, SCHEMA, compression="zstd") as sink:
        for batch in connection.sql(_WRITTEN).to_arrow_reader(_ROWS):
            sink.write_table(pa.Table.from_batches([batch]).cast(SCHEMA))


def recordings_of(table: Table) -> pa.Table:
    """Return the recordings of a candidate table with the columns of SCHEMA, in the order of their numbers. In a table in memory,
    each row is a recording."""
    if table.folder is not None:
        return _opened(table, table.folder).read()
    ids = [table.ids[row] for row in range(len(table))]
    rows = [{"part": 0, "source_id": name, "seconds": float(s)} for name, s in zip(ids, table.seconds, strict=True)]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def recording_count(table: Table) -> int:
    """Return the number of recordings of a candidate table."""
    return len(table) if table.folder is None else int(_opened(table, table.folder).metadata.num_rows)


def _opened(table: Table, folder: Path) -> pq.ParquetFile:
    """Return the file, which stays open: another run may remove the table while this one is trained on it."""
    if table.recordings is None:
        table.recordings = pq.ParquetFile(pa.memory_map(str(folder / RECORDINGS)))
    return table.recordings


def _insert(connection: duckdb.DuckDBPyConnection, name: str, batch: pa.RecordBatch, part: int) -> None:
    rows = pa.Table.from_batches([batch])
    connection.register("given", rows.append_column("part", pa.array([part] * len(rows), pa.int64())))
    connection.execute(f"INSERT INTO {name} SELECT * FROM given")
    connection.unregister("given")
