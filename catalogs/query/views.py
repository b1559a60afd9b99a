"""The catalog: DuckDB views and macros over the compacted files of a corpus, for queries and reports.

`catalog.duckdb` holds no rows: its views name files of compact/ relative to the corpus, so that both can be moved. It is built in
a draft folder and renamed into place, so the pipeline never holds it open and readers never wait for a lock. If a corpus has new
units, the catalog must be rebuilt: `query` does this automatically, `voxmill catalog CORPUS` does it for other DuckDB clients.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from catalogs.compaction.column_types import column_types
from catalogs.compaction.compact import NOT_WRITABLE, compact
from catalogs.compaction.generation import Generation
from catalogs.compaction.units import RECORDS
from catalogs.corpus.attempts import cause_sql
from catalogs.corpus.columns import RIGHTS
from catalogs.corpus.commit import corpus_info
from catalogs.corpus.duplicates import duplicates_path
from catalogs.corpus.history import replaced_sources
from catalogs.corpus.ids import short_hash
from catalogs.corpus.marks import mark_files
from catalogs.corpus.schema import INDEX, SCHEMA_VERSION, SCHEMAS
from catalogs.corpus.thresholds import Thresholds, load_thresholds, save_thresholds
from catalogs.nearest import nearest
from catalogs.query.comments import comments_sql, with_comments
from catalogs.query.damaged import DamagedCompactionError, asking, refuse_damage
from catalogs.query.macros import macros_sql
from catalogs.query.marked import marked_sql, marks_sql
from catalogs.query.row_sources import columns_sql, folder_sql, list_sql, quoted, sources_sql, unforgotten_marks
from catalogs.query.view_columns import MACRO_WORDS

if TYPE_CHECKING:
    import duckdb

VIEWS = (
    "recordings",
    "segments",
    "reference_pairs",
    "descriptions",
    "checks",
    "decoupled",
    "marks",
    "quarantine",
    "units",
    "stages",
    "funnel",
)


class QueryError(ValueError):
    """A query is wrong; the message is one line that says what to write instead."""


def catalog_path(root: str | Path) -> Path:
    """Return the path of a corpus' catalog."""
    return Path(root) / "catalog.duckdb"


def build_catalog(root: str | Path, thresholds: Thresholds | None = None) -> Path:
    """Compact what is new, rebuild catalog.duckdb, replace the old one, and return its path.

    `thresholds`, if given, are saved as those of the corpus. No model is called: the views compute `kept`. Raises OSError for a
    corpus that cannot be written.
    """
    root = Path(root).resolve()
    corpus_info(root)
    if thresholds is not None:
        save_thresholds(root, thresholds)
    limits = thresholds or load_thresholds(root)
    return _build(root, compacted(root, limits, again=True), limits)


def compacted(root: Path, limits: Thresholds, again: bool = False) -> Generation:
    """Return the compacted files of a corpus: see `compact`. Raises DamagedFileError for a file that cannot be read."""
    with asking(root):
        return compact(root, limits, again)


def _build(root: Path, generation: Generation, limits: Thresholds) -> Path:
    import duckdb

    # The database takes its name from the file: a draft with another name would be unreadable after the rename. The draft is not
    # under tmp/ because a run that starts now would sweep it.
    _sweep_drafts(root)
    draft = root / f".catalog-{uuid.uuid4().hex[:8]}" / "catalog.duckdb"
    draft.parent.mkdir()
    try:
        with asking(root):
            connection = duckdb.connect(str(draft))
            try:
                # The views are bound as they will be at the final place: see `folder_sql`.
                connection.execute(f"SET temp_directory = {quoted(f'{catalog_path(root)}.tmp')}")
                # One transaction: DuckDB would flush each of the 150 statements to the disk separately.
                connection.begin()
                connection.execute(_sql(root, generation, limits))
                connection.commit()
            finally:
                connection.close()
        os.replace(draft, catalog_path(root))  # noqa: PTH105 - atomic
    finally:
        shutil.rmtree(draft.parent, ignore_errors=True)
    return catalog_path(root)


def _sweep_drafts(root: Path) -> None:
    """Remove drafts that a killed build left more than an hour ago."""
    for folder in root.glob(".catalog-*"):
        # Another build may remove its draft at any time.
        with suppress(FileNotFoundError):
            if folder.stat().st_mtime < time.time() - 3600:
                shutil.rmtree(folder, ignore_errors=True)


def _sql(root: Path, generation: Generation, limits: Thresholds, is_fixed: bool = False) -> str:
    """Return all statements of the catalog. is_fixed: for a database elsewhere, whose views name the corpus by its path."""
    values: dict[str, str] = {
        "folder": folder_sql(root if is_fixed else None),
        "state": quoted(_state(root, generation, limits)),
        "version": str(SCHEMA_VERSION),
        "columns_segments": columns_sql(INDEX.names),
        "columns_rights": columns_sql(column.name for column in RIGHTS),
        "any_rights": ", ".join(f'any_value("{column.name}") AS "{column.name}"' for column in RIGHTS),
        "cause": cause_sql(),
        "macros": macros_sql(),
        "comments": comments_sql(),
        "replaced": f"CAST({list_sql(replaced_sources(root))} AS VARCHAR[])",
    }
    for kind, source in present_sources(root, generation, limits).items():
        values[f"files_{kind}"] = source
        if kind in SCHEMAS:
            values[f"columns_{kind}"] = columns_sql(SCHEMAS[kind].names)
    has_marks = bool(mark_files(root))
    values["columns_marks"] = columns_sql(SCHEMAS["marks"].names)
    marks = marks_sql(column_types(SCHEMAS["marks"]), has_marks)
    values["files_marks"] = unforgotten_marks(root, generation, marks) if has_marks else marks
    values["files_index"] = marked_sql(values["files_index"], "marks", has_marks)
    template = (Path(__file__).parent / "views.sql").read_text(encoding="utf-8")
    return Template(template).substitute(values)


def present_sources(root: Path, generation: Generation, limits: Thresholds) -> dict[str, str]:
    """Return SQL for the rows of each kind that count at present: see `sources_sql`."""
    types = {kind: column_types(schema) for kind, schema in {**SCHEMAS, "units": RECORDS}.items()}
    return sources_sql(root, generation, types, limits)


def _state(root: Path, generation: Generation, limits: Thresholds) -> str:
    """Return a hash of everything that the views are built from: if it differs, the catalog is out of date."""
    template = (Path(__file__).parent / "views.sql").read_text(encoding="utf-8")
    there_are = (str(duplicates_path(root).is_file()), str(bool(mark_files(root))))
    names = (generation.state, generation.folder.name, *there_are)
    return short_hash(
        *names,
        limits.kept_sql(),
        limits.all_reasons_sql(),
        template,
        macros_sql(),
        comments_sql(),
        folder_sql(None),
        *replaced_sources(root),
    )


def connect(root: str | Path, memory: str | None = None) -> duckdb.DuckDBPyConnection:
    """Return a read-only connection to an up-to-date catalog, rebuilt first if units, annotations or thresholds changed.

    memory: DuckDB's limit for this process, e.g. `400MB`; beyond it, queries fail instead of writing beside the catalog.
    """
    import duckdb

    root = Path(root).resolve()
    limits = load_thresholds(root)
    generation = compacted(root, limits)
    path = catalog_path(root)
    if generation.folder.is_relative_to(root):
        if path.is_file():
            connection = None
            try:
                connection = duckdb.connect(str(path), read_only=True)
                found = connection.execute("SELECT state FROM catalog_info").fetchall()
                if found and found[0][0] == _state(root, generation, limits):
                    return _confined(connection, root, memory=memory)
            except duckdb.Error:
                pass  # Damaged, or from another version: it holds views only, so it is built again.
            if connection is not None:
                connection.close()
        try:
            return _confined(duckdb.connect(str(_build(root, generation, limits)), read_only=True), root, memory=memory)
        except OSError as error:
            if error.errno not in NOT_WRITABLE:
                raise
    # The corpus is not writable: build the same views in memory.
    connection = duckdb.connect()
    with asking(root):
        connection.execute(_sql(root, generation, limits, is_fixed=True))
    return _confined(connection, root, generation.folder, memory=memory)


_SETTINGS = threading.Lock()
"""Held while a connection is confined."""


def _confined(
    connection: duckdb.DuckDBPyConnection, root: Path, *more: Path, memory: str | None = None
) -> duckdb.DuckDBPyConnection:
    """Restrict a connection to files of the corpus folder: no other files, no network, no extensions, until it is closed.

    The views of a corpus from another person and pasted queries are untrusted SQL.
    """
    # Connections of one process to a catalog share their settings: another thread must not lock them between these statements.
    with _SETTINGS:
        # All rows are fetched: a result that is left open would keep the connection from the next statement.
        ((locked,),) = connection.execute("SELECT current_setting('lock_configuration')").fetchall()
        if locked:
            return connection  # Another connection of this process has confined the catalog already.
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")
        if memory is not None:
            connection.execute(f"SET memory_limit = {quoted(memory)}")
            connection.execute("SET max_temp_directory_size = '0KB'")
        connection.execute(f"SET allowed_directories = {list_sql(map(str, (root, *more)))}")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
    return connection


def query(root: str | Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return column names and rows of one SELECT over the catalog's views. Raises QueryError with a one-line message."""
    found = query_table(root, sql)
    return list(found.column_names), [tuple(row.values()) for row in _plain(found)]


def query_table(root: str | Path, sql: str) -> pa.Table:
    """Return the result of one SELECT over the catalog's views as a table. Raises QueryError with a one-line message."""
    try:
        return _asked(root, sql)
    except DamagedCompactionError:
        return _asked(root, sql)  # The damaged copies are removed: they are made again.


def _asked(root: str | Path, sql: str) -> pa.Table:
    import duckdb

    with connect(root) as connection:
        found = asked(root, connection, sql)
        try:
            return found.to_arrow_table()
        except duckdb.Error as error:
            refuse_damage(root, error)
            raise QueryError(explain(connection, error)) from None


def asked(
    root: str | Path, connection: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, str] | None = None
) -> duckdb.DuckDBPyRelation:
    """Return one SELECT over the catalog's views, ready to be run. parameters: the texts of its `$name`; DuckDB converts them to
    what they are compared with. Raises QueryError with a one-line message, DamagedFileError if a file cannot be read."""
    import duckdb

    given = dict(parameters or {})
    try:
        statements = connection.extract_statements(with_comments(sql))
    except duckdb.Error as error:
        raise QueryError(explain(connection, error)) from None
    try:
        readers = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN, duckdb.StatementType.RELATION)
        if len(statements) != 1 or statements[0].type not in readers:
            raise QueryError("give one SELECT: the catalog is read-only")
        named = statements[0].named_parameters
        if missing := sorted(named - given.keys()):
            raise QueryError(f"the query has the parameter ${missing[0]}: give its value with -p {missing[0]}=VALUE")
        if unknown := sorted(given.keys() - named):
            raise QueryError(f"the query has no parameter ${unknown[0]}; it has: {', '.join(sorted(named)) or 'none'}")
        return connection.sql(statements[0].query, params=given or None)
    except duckdb.Error as error:
        refuse_damage(root, error)
        raise QueryError(explain(connection, error)) from None


def count_kept(root: str | Path, *limits: Thresholds) -> list[int]:
    """Return how many segments each of the given thresholds would keep, in one scan. What people decided stands."""
    asked_for_it = "human IS NOT DISTINCT FROM 'keep' AND shard IS NOT NULL"
    counts = ", ".join(f"count(*) FILTER (({asked_for_it}) OR {limit.kept_sql()})" for limit in limits)
    return list(query(root, f"SELECT {counts} FROM segments")[1][0])


def result_rows(connection: duckdb.DuckDBPyConnection, sql: str, *given: Any) -> list[dict[str, Any]]:
    """Return all rows of a query on an open catalog by column name. given: the values of its `?`."""
    found: list[dict[str, Any]] = connection.sql(sql, params=list(given) or None).to_arrow_table().to_pylist()
    return found


def _plain(table: pa.Table) -> Iterable[dict[str, Any]]:
    unique = table.rename_columns([str(n) for n in range(table.num_columns)])
    for batch in unique.to_batches(max_chunksize=4096):
        yield from batch.to_pylist()


def explain(connection: duckdb.DuckDBPyConnection, error: Exception) -> str:
    """Return DuckDB's message as one line, with the nearest table or column for an unknown name. If the query reads a file outside
    of the corpus, return another message."""
    text = str(error)
    if "disabled by configuration" in text:
        file = re.search(r'"([^"]+)"', text)
        return f"a query reads files of its corpus only, not {file.group(1) if file else 'others'}; open them in your own DuckDB"
    tables = re.search(r"Table with name (\S+) does not exist", text)
    if tables:
        name = tables.group(1).strip('"')
        if name.lower() in MACRO_WORDS:
            return f"{name} is a macro, not a table; write {name.lower()}()"
        return _unknown("table", name, VIEWS)
    columns = re.search(r'Referenced column "([^"]+)" (?:was )?not found', text) or re.search(
        r'does not have a column named "([^"]+)"', text
    )
    if columns:
        known = connection.execute("SELECT DISTINCT column_name FROM duckdb_columns() WHERE NOT internal").fetchall()
        return _unknown("column", columns.group(1), [name for (name,) in known])
    words = " ".join(re.split(r"\n\s*\n?LINE |Candidate (?:functions|macros)", text)[0].split())
    takes = re.search(r"Candidate (?:functions|macros):\s*\n((?:[ \t]+\S.*(?:\n|$))+)", text)
    return f"{words} It takes: {' or '.join(line.strip() for line in takes[1].splitlines()[:3])}" if takes else words


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    near = nearest(name, known)
    if near:
        return f"unknown {kind} {name}; did you mean {near}?"
    if kind == "table":
        return f"unknown {kind} {name}; there are: {', '.join(known)}"
    return f"unknown {kind} {name}; list them with: describe segments (or another view)"
