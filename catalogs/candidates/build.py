"""Fill a candidate table from one or more corpora. DuckDB joins everything about a segment by id, on disk, in bounded memory.

If several corpora hold a segment, its row, its description and its group are those of the first that has them.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalogs.candidates.captions import ADDED, COLUMNS, READ, caption_columns, no_blanks
from catalogs.candidates.recordings import RECORDING_JOINS, RECORDING_TABLES, read_recordings, write_recordings
from catalogs.candidates.table import (
    ACCEPTED,
    CAPTION_FLAGS,
    DIGESTED,
    LARGEST_HELD,
    MADE,
    STRING_KEYS,
    STRINGS,
    TEXT,
    Writer,
    digest_of,
)
from catalogs.compaction.listing import listing
from catalogs.corpus.damage import finding
from catalogs.corpus.duplicates import duplicates_path, read_duplicates
from catalogs.corpus.ids import short_hash
from catalogs.corpus.marks import marks_state
from catalogs.corpus.reader import Corpus
from catalogs.corpus.schema import SCHEMAS, fill
from catalogs.corpus.thresholds import load_thresholds
from catalogs.query.damaged import asking
from catalogs.query.licensed import ANY, licensed_sql
from catalogs.query.present_rows import present_rows
from catalogs.query.views import connect, query_table
from catalogs.vocabulary.licenses import allowed_sql

if TYPE_CHECKING:
    import duckdb

_ROWS = 65_536
_MEMORY = "1GB"
_KEY_FORMAT = 6
"""Increased when a table of the same corpora would hold other values."""

_NAMES = ", ".join(f'"{name}"' for name in COLUMNS)
_TYPED = ", ".join(f'"{name}" VARCHAR' for name in COLUMNS)
_LATEST = ",\n    ".join(f'arg_max("{name}", seq) FILTER (WHERE "{name}" IS NOT NULL) AS "{name}"' for name in COLUMNS)
_IS_DESCRIBED = " OR ".join(f'words."{name}" IS NOT NULL' for name in ("full", *ADDED))
_TABLES = f"""
CREATE TABLE kept (segment_id VARCHAR, language VARCHAR, text VARCHAR, seconds DOUBLE, shard VARCHAR, place INTEGER,
    synthetic BOOLEAN, source_id VARCHAR, part BIGINT);
CREATE TABLE descriptions (segment_id VARCHAR, {_TYPED}, seq BIGINT);
CREATE TABLE decoupled (segment_id VARCHAR, described_id VARCHAR, timbre_id VARCHAR, text VARCHAR, accepted BOOLEAN,
    text_id VARCHAR, seq BIGINT);
CREATE TABLE pairs (segment_id VARCHAR, reference_id VARCHAR, seq BIGINT);
CREATE TABLE linked (segment_id VARCHAR, name VARCHAR, seq BIGINT);
{RECORDING_TABLES}
"""
_JOINS = f"""
CREATE TABLE rows AS
SELECT row_number() OVER (ORDER BY segment_id) - 1 AS n, * FROM (
    SELECT * FROM kept QUALIFY row_number() OVER (PARTITION BY segment_id ORDER BY part) = 1
);
CREATE TABLE words AS
SELECT segment_id,
    {_LATEST}
FROM descriptions GROUP BY segment_id;
CREATE TABLE made AS
SELECT * FROM decoupled QUALIFY row_number() OVER (PARTITION BY segment_id ORDER BY seq DESC) = 1;
CREATE TABLE members AS
SELECT segment_id, name FROM linked QUALIFY row_number() OVER (PARTITION BY segment_id ORDER BY seq DESC) = 1;
CREATE TABLE groups AS
SELECT name, count(*) AS size, (SELECT count(*) FROM rows) + row_number() OVER (ORDER BY name) - 1 AS code
FROM members GROUP BY name;
CREATE TABLE places AS
SELECT segment_id, name, size, code FROM members JOIN groups USING (name);
{RECORDING_JOINS}
"""
_ROWS_SQL = f"""
SELECT rows.n, rows.segment_id, coalesce(rows.language, '') AS language, rows.seconds, rows.shard, rows.place, rows.part,
    CASE WHEN made.segment_id IS NULL THEN rows.text ELSE made.text END AS text,
    {_NAMES}, made.described_id AS described,
    made.segment_id IS NOT NULL OR coalesce(rows.synthetic, false) AS is_made,
    coalesce(made.accepted AND made.text IS NOT NULL AND ({_IS_DESCRIBED}) AND timbre.n IS NOT NULL, false) AS is_accepted,
    own.name AS group_name, coalesce(own.size, 1) AS group_size, coalesce(own.code, rows.n) AS group_code,
    CASE WHEN made.segment_id IS NULL THEN -1 ELSE coalesce(theirs.code, spoken.n, -1) END AS described_code,
    md5_number_lower(rows.segment_id) AS id_hash,
    heard.n AS recording, coalesce(followed.n, -1) AS described_recording, coalesce(wrote.n, -1) AS text_recording
FROM rows
JOIN heard ON heard.part = rows.part AND heard.source_id = rows.source_id
LEFT JOIN made ON made.segment_id = rows.segment_id
LEFT JOIN words ON words.segment_id = coalesce(made.described_id, rows.segment_id)
LEFT JOIN places AS own ON own.segment_id = rows.segment_id
LEFT JOIN places AS theirs ON theirs.segment_id = made.described_id
LEFT JOIN rows AS spoken ON spoken.segment_id = made.described_id
LEFT JOIN rows AS timbre ON timbre.segment_id = made.timbre_id
LEFT JOIN owners ON owners.segment_id = made.described_id
LEFT JOIN heard AS followed ON followed.part = owners.part AND followed.source_id = owners.source_id
LEFT JOIN owners AS writers ON writers.segment_id = made.text_id
LEFT JOIN heard AS wrote ON wrote.part = writers.part AND wrote.source_id = writers.source_id
ORDER BY rows.n
"""
_PAIRS_SQL = """
SELECT segment, reference FROM (
    SELECT own.n AS segment, other.n AS reference, min(pairs.seq) AS seq
    FROM pairs JOIN rows AS own ON own.segment_id = pairs.segment_id
    JOIN rows AS other ON other.segment_id = pairs.reference_id
    WHERE own.n <> other.n
        AND NOT EXISTS (SELECT 1 FROM made WHERE made.segment_id = own.segment_id OR made.segment_id = other.segment_id)
    GROUP BY own.n, other.n
    UNION ALL
    SELECT own.n, timbre.n, 0
    FROM made JOIN rows AS own ON own.segment_id = made.segment_id JOIN rows AS timbre ON timbre.segment_id = made.timbre_id
)
ORDER BY segment, seq
"""
_KEPT_SQL = """
SELECT segment_id, language, text, duration_s, shard, "row", synthetic, source_id FROM segments
WHERE kept AND "row" IS NOT NULL AND {licensed}
"""


def table_key(parts: Sequence[Corpus], licenses: Sequence[str] = ANY) -> str:
    """Return a hash of everything that a table of these corpora, in this order, is made from: units, thresholds, annotations,
    marks, and the condition on licenses, if there is one."""
    found = [str(_KEY_FORMAT)]
    if (licensed := allowed_sql(licenses)) != allowed_sql(ANY):
        found.append(licensed)
    for part in parts:
        # The state of the listing includes the tombstones: no table holds what is to be forgotten.
        found += [load_thresholds(part.path).model_dump_json(), listing(part.path).state]
        found += marks_state(part.path)
        path = duplicates_path(part.path)
        if path.is_file():
            about = path.stat()
            found.append(f"{about.st_size} {about.st_mtime_ns}")
        found.append("")
    return short_hash(*found)


def fill_table(
    parts: Sequence[Corpus],
    writer: Writer,
    scratch: Path,
    draw: Callable[[str], float],
    licenses: Sequence[str] = ANY,
) -> None:
    """Write the rows of all kept segments that have audio and an allowed license, and close the writer. draw: see `Table.draw`.

    scratch: a folder for what does not fit into memory. Raises CorpusError for damaged files, OSError for a full disk and
    ValueError for other errors of DuckDB.
    """
    import duckdb

    scratch.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect(str(scratch / "join.duckdb"))
    try:
        connection.execute(f"SET memory_limit = '{_MEMORY}'")
        connection.execute(f"SET temp_directory = '{str(scratch).replace(chr(39), chr(39) * 2)}'")
        connection.execute("SET preserve_insertion_order = false")
        connection.execute("SET enable_progress_bar = false")
        connection.execute(_TABLES)
        for number, part in enumerate(parts):
            _read_part(connection, number, part, len(parts), licenses)
        read_recordings(connection, parts)
        connection.execute(_JOINS)
        write_recordings(connection, writer.folder)
        names = _write_rows(connection, writer, draw)
        _write_pairs(connection, writer)
    except duckdb.Error as error:
        if "No space left" in str(error):
            raise OSError(errno.ENOSPC, "no space left on the disk", str(scratch)) from None
        raise ValueError(finding(error)) from None
    finally:
        connection.close()
    writer.close(*names)


def _read_part(
    connection: duckdb.DuckDBPyConnection, number: int, part: Corpus, parts: int, licenses: Sequence[str] = ANY
) -> None:
    """Insert the rows of one corpus into the tables. The highest `seq` wins: the first corpus, and in it the last row written."""
    kept = _KEPT_SQL.format(licensed=licensed_sql(part.path, licenses))
    with connect(part.path) as catalog, asking(part.path):
        for batch in catalog.sql(kept).to_arrow_reader(_ROWS):
            _insert(connection, "kept", _numbered(batch, number, by_row=False))
    first = (parts - number) << 40
    for found in present_rows(part.path, "descriptions", ["segment_id", *READ, "status", "verdict"]):
        batch = fill(pa.Table.from_batches([found]), _schema("descriptions", found.schema.names))
        good = pc.and_(
            pc.fill_null(pc.equal(batch["status"], "ok"), False),
            pc.fill_null(pc.not_equal(batch["verdict"], "dropped"), True),
        )
        table = pa.table({"segment_id": batch["segment_id"], **caption_columns(batch)}).filter(good)
        _insert(connection, "descriptions", _numbered(table, first))
        first += batch.num_rows
    columns = ["segment_id", "described_id", "timbre_id", "text", "accepted", "text_id"]
    for found in present_rows(part.path, "decoupled", columns):
        batch = pa.Table.from_batches([found])
        _insert(connection, "decoupled", _numbered(batch.set_column(3, "text", no_blanks(batch["text"])), first))
        first += batch.num_rows
    linked = read_duplicates(part.path).select(["segment_id", "duplicate_group"])
    _insert(connection, "linked", _numbered(linked.filter(pc.is_valid(linked["duplicate_group"])), first))
    # Pairs are taken by the lowest `seq`: a pair that several corpora name has its place in the first of them.
    second = number << 40
    for found in present_rows(part.path, "references", ["segment_id", "reference_id"]):
        _insert(connection, "pairs", _numbered(found, second))
        second += found.num_rows


def _schema(kind: str, names: Sequence[str]) -> pa.Schema:
    return pa.schema([SCHEMAS[kind].field(name) for name in names])


def _numbered(rows: pa.Table | pa.RecordBatch, first: int, by_row: bool = True) -> pa.Table:
    """Return the rows with a last column `number`: counting up from `first`, or all `first`."""
    table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
    numbers = np.arange(first, first + len(table)) if by_row else np.full(len(table), first)
    return table.append_column("number", pa.array(numbers, pa.int64()))


def _insert(connection: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> None:
    connection.register("given", rows)
    connection.execute(f"INSERT INTO {name} SELECT * FROM given")
    connection.unregister("given")


def _write_rows(
    connection: duckdb.DuckDBPyConnection, writer: Writer, draw: Callable[[str], float]
) -> tuple[list[str], list[tuple[int, str]]]:
    """Write all columns except the pairs; return the names of the languages and the shards."""
    languages: dict[str, int] = {}
    shards: dict[tuple[int, str], int] = {}
    for batch in connection.sql(_ROWS_SQL).to_arrow_reader(_ROWS):
        table = pa.Table.from_batches([batch])
        values = {name: table[name].to_pylist() for name in (*DIGESTED, "group_name", "group_size", "shard", "part")}
        rows = range(len(table))
        writer.numbers("seconds", table["seconds"].to_numpy())
        writer.numbers("language", [languages.setdefault(name, len(languages)) for name in values["language"]])
        places = zip(values["part"], values["shard"], strict=True)
        writer.numbers("shard", [shards.setdefault(place, len(shards)) for place in places])
        writer.numbers("row", table["place"].to_numpy())
        writer.numbers("group", table["group_code"].to_numpy())
        writer.numbers("described_group", table["described_code"].to_numpy())
        writer.numbers("id_hash", table["id_hash"].to_numpy())
        writer.numbers("recording", table["recording"].to_numpy())
        writer.numbers("described_recording", table["described_recording"].to_numpy())
        writer.numbers("text_recording", table["text_recording"].to_numpy())
        writer.numbers("flags", _flags(table))
        writer.numbers(
            "draw",
            [
                1.0
                if values["group_size"][i] > LARGEST_HELD
                else draw(values["group_name"][i] or values["segment_id"][i])
                for i in rows
            ],
        )
        writer.numbers("digest", np.array(_digests(table, values), "<u8"))
        for name, column in zip(STRINGS, STRING_KEYS, strict=True):
            writer.strings(name, *_bytes(table[column]))
    return list(languages), list(shards)


def _digests(table: pa.Table, values: Mapping[str, Sequence[Any]]) -> list[int]:
    """Return the digests of the rows. values: the columns DIGESTED of the table."""
    added = {name: table[name].to_pylist() for name in ADDED if table[name].null_count < len(table)}
    columns = {name: values[name] for name in DIGESTED} | added
    return [digest_of({name: column[i] for name, column in columns.items()}) for i in range(len(table))]


def _flags(table: pa.Table) -> np.ndarray:
    """Return the flags of the rows, `[N] uint16`."""

    def bits(column: Any, flag: int) -> np.ndarray:
        return column.to_numpy().astype(np.uint16) * np.uint16(flag)

    has_text = pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(table["text"]), ""), False)
    found = bits(has_text, TEXT) | bits(table["is_made"], MADE) | bits(table["is_accepted"], ACCEPTED)
    for name, flag in zip(COLUMNS, CAPTION_FLAGS, strict=True):
        found |= bits(pc.is_valid(table[name]), flag)
    return np.asarray(found)


def _bytes(column: pa.ChunkedArray) -> tuple[np.ndarray, bytes]:
    """Return (sizes `[N] int64`, bytes) of strings; null counts as empty."""
    filled = pc.fill_null(column, "").cast(pa.large_string()).combine_chunks()
    array = filled.chunk(0) if isinstance(filled, pa.ChunkedArray) else filled
    ends = np.frombuffer(array.buffers()[1], "<i8")[array.offset : array.offset + len(array) + 1]
    data = array.buffers()[2]
    return np.diff(ends), bytes(memoryview(data)[int(ends[0]) : int(ends[-1])]) if data is not None else b""


def _write_pairs(connection: duckdb.DuckDBPyConnection, writer: Writer) -> None:
    ((rows,),) = connection.execute("SELECT count(*) FROM rows").fetchall()
    counts = np.zeros(rows + 1, dtype=np.int64)
    for batch in connection.sql(_PAIRS_SQL).to_arrow_reader(_ROWS):
        segments, references = (batch.column(name).to_numpy(zero_copy_only=False) for name in ("segment", "reference"))
        writer.numbers("pairs", references)
        np.add.at(counts, segments + 1, 1)
    writer.numbers("pairs_at", np.cumsum(counts))


def license_hours(root: Path) -> dict[str | None, float]:
    """Return the hours of kept segments with audio by license, in any spelling; None: without one. Raises QueryError."""
    found = query_table(
        root,
        'select license, sum(duration_s) / 3600 as hours from segments where kept and "row" is not null group by 1',
    )
    return {row["license"]: row["hours"] for row in found.to_pylist()}


def id_hashes(root: Path, where: str) -> np.ndarray:
    """Return the `id_hash` of each kept segment with audio that fulfills an SQL condition, `[N] uint64`. Raises QueryError."""
    found = query_table(
        root,
        f'select md5_number_lower(segment_id) as id_hash from segments where kept and "row" is not null and ({where})',
    )
    return np.asarray(found.column("id_hash").to_numpy())
