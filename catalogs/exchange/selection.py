"""The clips of an export: chosen once by SQL, divided into splits, and stored as the rows that all parts are made from.

The rows are in selection/<split>.parquet, one row group per part. A killed export continues from them, so that it holds the clips
that it began with whatever happens to the corpus meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from catalogs.corpus.columns import RIGHTS as _RIGHTS
from catalogs.corpus.reader import pass_precedence
from catalogs.exchange.request import ExchangeError, Request
from catalogs.exchange.splits import LEFT_OUT, SplitKeys, SplitResult, assign, key_of, text_key
from catalogs.files import open_atomically
from catalogs.query.damaged import asking
from catalogs.query.licensed import licensed_sql
from catalogs.query.views import connect, query

if TYPE_CHECKING:
    import duckdb

ALWAYS = (
    "segment_id",
    "session_id",
    "source_id",
    "start_s",
    "end_s",
    "duration_s",
    "sample_rate",
    "language",
    "text",
    "speaker",
    "gender",
    "license",
    "shard",
    "row",
)
"""Columns that every format may need."""
RIGHTS = tuple(column.name for column in _RIGHTS)
"""Columns that say what a clip may be used for: every format has them."""
PRIVATE = frozenset({"path", "kept", "reasons", "extra"})
"""Columns that no export has unless it is asked: paths of this machine, and what the condition has decided."""
_CHUNK_ROWS = 50_000
_PART_S = 7200.0
"""Seconds of audio at which a part ends: at most some hundred MB of FLAC, however long the clips are."""


@dataclass(frozen=True)
class Chosen:
    """The stored selection: its files by split, what was left out and how the splits came about."""

    files: dict[str, Path]
    counts: dict[str, int]
    splits: dict[str, Any]


def condition(root: Path, request: Request) -> str:
    """Return the SQL condition of a request. Raises ValueError for licenses that cannot be meant."""
    parts = [f"(\n{request.where}\n)"]
    if request.license_allow:
        parts.append(licensed_sql(root, request.license_allow))
    return " AND ".join(parts)


def available(root: Path) -> dict[str, str]:
    """Return the columns of the view `segments` and their DuckDB types."""
    rows = query(root, "SELECT column_name, column_type FROM (DESCRIBE segments)")[1]
    return {str(name): str(kind) for name, kind in rows}


def choose(root: Path, request: Request, columns: Sequence[str], needs_text: bool, part_rows: int, to: Path) -> Chosen:
    """Choose the clips of an export and store their rows below `to`. Return the files by split.

    Raises QueryError for a wrong condition, ExchangeError if no clip is left.
    """
    where = condition(root, request)
    has_text = f"trim(coalesce({request.text}, '')) <> ''"
    counts = _counts(root, request, where, has_text)
    usable = f"{where} AND shard IS NOT NULL" + (f" AND {has_text}" if needs_text else "")
    if not needs_text:
        counts.pop("without_text")
    chosen = counts["matching"] - counts["without_audio"] - counts.get("without_text", 0)
    if not chosen:
        raise ExchangeError(f"no clip to export: {_why_none(counts)}")
    with connect(root) as connection, asking(root):
        chunks = _chunks(connection, usable)
        result, out = _splits(connection, request, usable, chunks)
        files = _store(connection, request, columns, usable, chunks, result, out, part_rows, to)
    told: dict[str, Any] = {}
    if result is not None:
        counts["left_out_same_text"] = result.left_out
        told = {
            "components": result.components,
            "largest_component_share": round(result.largest_share, 4),
            "larger_than_held_out": result.too_large,
            "joined_by_text": result.joined_by_text,
        }
    return Chosen(files, counts, told)


def _counts(root: Path, request: Request, where: str, has_text: str) -> dict[str, int]:
    filters = {
        "matching": where,
        "without_audio": f"{where} AND shard IS NULL",
        "without_text": f"{where} AND shard IS NOT NULL AND NOT ({has_text})",
    }
    sums = ", ".join(f"count(*) FILTER (WHERE {test})" for test in filters.values())
    # First alone, so that a wrong condition is reported as the user wrote it; without brackets, so that it cannot close ours.
    query(root, f"SELECT count(*) FROM (SELECT 1 FROM segments WHERE {request.where}\n) LIMIT 0")
    return dict(zip(filters, query(root, f"SELECT {sums} FROM segments")[1][0], strict=True))


def _why_none(counts: dict[str, int]) -> str:
    if not counts["matching"]:
        return "no segment fulfills the condition (and has an allowed license); loosen --where or --license-allow"
    return f"of {counts['matching']} segments {counts['without_audio']} have no audio and the others no text"


def _chunks(connection: duckdb.DuckDBPyConnection, where: str) -> list[tuple[str, str]]:
    """Return ranges of shards that hold about `_CHUNK_ROWS` clips each, in order."""
    chunks: list[tuple[str, str]] = []
    held, first = 0, None
    shards = connection.execute(f"SELECT shard, count(*) FROM segments WHERE {where} GROUP BY 1 ORDER BY 1").fetchall()
    for number, (shard, rows) in enumerate(shards):
        first = shard if first is None else first
        held += rows
        if held >= _CHUNK_ROWS or number == len(shards) - 1:
            chunks.append((first, shard))
            held, first = 0, None
    return chunks


def _splits(
    connection: duckdb.DuckDBPyConnection, request: Request, where: str, chunks: Sequence[tuple[str, str]]
) -> tuple[SplitResult | None, np.ndarray]:
    """Return the split of each clip in the order of the chunks (None if there is one split), and the keys of ids left out."""
    if len(request.splits) == 1:
        return None, np.zeros(0, dtype=np.uint64)
    # A session of several parts is one: the parts are named talks, talks#2 and so on.
    keys = (
        "segment_id, split_part(session_id, '#', 1), speaker, owner_speaker, coalesce(duplicate_group, segment_id), "
        f"CAST({request.text} AS VARCHAR), duration_s"
    )
    found: list[list[np.ndarray]] = [[] for _ in range(7)]
    for first, last in chunks:
        reader = connection.sql(f"SELECT {keys} {_of_chunk(where)}", params=[first, last]).to_arrow_reader(8192)
        for batch in reader:
            ids, session, speaker, owned, group, text, seconds = (column.to_pylist() for column in batch.columns)
            texts = [text_key(value) for value in text]
            for place, values in enumerate((ids, session, speaker, owned, group, texts)):
                found[place].append(np.fromiter(map(key_of, values), np.uint64, len(values)))
            found[6].append(np.array(seconds, dtype=np.float64))
    own, *keyed, spent = (np.concatenate(parts) for parts in found)
    linked = SplitKeys(keyed[0], keyed[1:4], keyed[4], spent)
    result = assign(linked, request.splits, request.seed, request.same_text)
    return result, np.sort(own[result.of_clip == LEFT_OUT])


def _of_chunk(where: str) -> str:
    return f"FROM segments WHERE {where} AND shard BETWEEN ? AND ? ORDER BY shard, row"


def _store(
    connection: duckdb.DuckDBPyConnection,
    request: Request,
    columns: Sequence[str],
    where: str,
    chunks: Sequence[tuple[str, str]],
    result: SplitResult | None,
    out: np.ndarray,
    part_rows: int,
    to: Path,
) -> dict[str, Path]:
    """Write the rows of each split, in row groups of `part_rows`."""
    to.mkdir(parents=True, exist_ok=True)
    files = {split.name: to / f"{split.name}.parquet" for split in request.splits}
    with _Writers(files, part_rows) as writers:
        done = 0
        for first, last in chunks:
            sql = _rows_sql(columns, where)
            for batch in connection.sql(sql, params=[first, last]).to_arrow_reader(8192):
                table = _with_voice(pa.Table.from_batches([batch]), out)
                if result is None:
                    writers.write(request.splits[0].name, table)
                else:
                    own = result.of_clip[done : done + table.num_rows]
                    for number, split in enumerate(request.splits):
                        writers.write(split.name, table.filter(pa.array(own == number)))
                done += table.num_rows
        if result is not None and done != len(result.of_clip):
            raise ExchangeError("the corpus changed while its clips were chosen; run the same command again")
    return files


def _rows_sql(columns: Sequence[str], where: str) -> str:
    """Return the query of one chunk: the columns, what annotators said, and the best reference that is exported too."""
    names = ", ".join(f'"{name}"' for name in columns)
    return f"""
WITH own AS (SELECT {names} {_of_chunk(where)}),
said AS (
    SELECT segment_id, list({{
        'annotator': annotator, 'captions': captions, 'full': "full", 'brief': brief, 'style': style
    }}) AS said
    FROM descriptions SEMI JOIN own USING (segment_id)
    WHERE status = 'ok' AND coalesce(verdict, '') <> 'dropped' GROUP BY segment_id
),
pairs AS (
    SELECT pair.segment_id, max_by(pair.reference_id, {{'cosine': pair.cosine, 'id': pair.reference_id}}) AS reference_id
    FROM reference_pairs AS pair SEMI JOIN own ON pair.segment_id = own.segment_id
    SEMI JOIN (SELECT segment_id FROM segments WHERE {where}) AS there ON pair.reference_id = there.segment_id
    GROUP BY pair.segment_id
)
SELECT own.*, said.said, pairs.reference_id
FROM own LEFT JOIN said USING (segment_id) LEFT JOIN pairs USING (segment_id)
ORDER BY own.shard, own.row
"""


def _with_voice(table: pa.Table, out: np.ndarray) -> pa.Table:
    """Replace what all annotators said by the captions of the one that counts, as JSON. Drop references that are left out."""
    chosen = [_voice(said) for said in table.column("said").to_pylist()]
    table = table.drop_columns(["said"]).append_column("voice", pa.array(chosen, pa.string()))
    if len(out):
        names = table.column("reference_id").to_pylist()
        gone = np.isin(np.fromiter(map(key_of, names), np.uint64, len(names)), out)
        kept = [None if is_gone else name for name, is_gone in zip(names, gone, strict=True)]
        table = table.set_column(
            table.schema.get_field_index("reference_id"), "reference_id", pa.array(kept, pa.string())
        )
    return table


def _voice(said: list[dict[str, Any]] | None) -> str | None:
    if not said:
        return None
    last = max(said, key=lambda one: pass_precedence(one["annotator"] or ""))
    captions = last["captions"] or [
        {"register": register, "language": None, "text": last[register]}
        for register in ("full", "style", "brief")
        if last[register]
    ]
    return json.dumps({"annotator": last["annotator"], "captions": captions}, ensure_ascii=False)


class _Writers:
    """One Parquet file per split, each written whole or not at all, with a row group for each part."""

    def __init__(self, files: dict[str, Path], part_rows: int) -> None:
        self._files, self._rows = files, part_rows
        self._waiting: dict[str, list[pa.Table]] = {name: [] for name in files}
        self._open: dict[str, Any] = {}
        self._schema: pa.Schema | None = None

    def __enter__(self) -> _Writers:
        return self

    def write(self, split: str, table: pa.Table) -> None:
        """Add rows to a split."""
        self._schema = table.schema
        waiting = self._waiting[split]
        waiting.append(table)
        whole = pa.concat_tables(waiting)
        while rows := self._full(whole):
            self._group(split, whole.slice(0, rows))
            whole = whole.slice(rows)
        waiting[:] = [whole]

    def _full(self, table: pa.Table) -> int:
        """Return the rows of a part at the start of a table; 0 if there are too few for one."""
        ends = np.cumsum(np.nan_to_num(table.column("duration_s").to_numpy()[: self._rows]))
        rows = int(np.searchsorted(ends, _PART_S)) + 1
        return rows if rows <= len(ends) else len(ends) if len(ends) == self._rows else 0

    def _group(self, split: str, table: pa.Table) -> None:
        import pyarrow.parquet as pq

        if split not in self._open:
            manager = open_atomically(self._files[split])
            self._open[split] = (manager, pq.ParquetWriter(manager.__enter__(), table.schema, compression="zstd"))
        self._open[split][1].write_table(table, row_group_size=max(1, table.num_rows))

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            if error is None:
                for split, waiting in self._waiting.items():
                    if sum(part.num_rows for part in waiting) or split not in self._open:
                        assert self._schema is not None
                        self._group(split, pa.concat_tables(waiting) if waiting else self._schema.empty_table())
        finally:
            for manager, writer in self._open.values():
                writer.close()
                manager.__exit__(kind, error, trace)


def parts_of(file: Path) -> list[int]:
    """Return the number of rows of each part of a split; no parts for a split without clips."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as table:
        rows = [table.metadata.row_group(number).num_rows for number in range(table.num_row_groups)]
    return [count for count in rows if count]


def rows_of(file: Path, part: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of one part as dicts; `voice` is decoded."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as table:
        for row in table.read_row_group(part).to_pylist():
            row["voice"] = json.loads(row["voice"]) if row["voice"] else None
            if "extra" in row:
                row["extra"] = dict(row["extra"] or ())
            yield row
