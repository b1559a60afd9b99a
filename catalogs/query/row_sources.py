"""The sources of the catalog's views as SQL: compacted files, without the rows of sources that another unit processed again.

Views name files relative to the corpus (`corpus_folder()`), so that a corpus can be moved with its catalog.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from catalogs.compaction.draft import list_sql, quoted
from catalogs.compaction.generation import Generation
from catalogs.compaction.judged import Judge
from catalogs.corpus.duplicates import duplicates_path
from catalogs.corpus.thresholds import Thresholds
from catalogs.corpus.tombstones import MADE_OF

__all__ = ["columns_sql", "folder_sql", "list_sql", "quoted", "read_sql", "sources_sql"]

_LATER = ("descriptions", "checks", "decoupled")
"""Kinds of files that later passes make, below annotations/."""
_FOLDER = (
    r"coalesce(getvariable('corpus') || '/', "
    r"regexp_extract(current_setting('temp_directory'), '^(.*/)?catalog[.]duckdb[.]tmp$', 1))"
)


def folder_sql(home: Path | None) -> str:
    """Return an SQL expression for the folder of the corpus, with a slash at its end. home: a fixed one.

    DuckDB tells no view where its database is, but its folder for temporary files is beside the database by default. A client
    that sets another folder, or attaches the catalog, says `SET VARIABLE corpus = '...'`, or works in the corpus folder.
    """
    return _FOLDER if home is None else quoted(f"{home}/")


def unforgotten_marks(root: Path, generation: Generation, marks: str) -> str:
    """Return SQL for the marks without those of segments that are to be forgotten. marks: SQL of their rows."""
    file = generation.gone.get("gone_forgotten")
    if file is None:
        return marks
    gone = read_sql([_inside(root, generation) + file.path])
    return f"(SELECT * FROM {marks} WHERE segment_id NOT IN (SELECT segment_id FROM {gone}))"


def _inside(root: Path, generation: Generation) -> str:
    """Return the folder of a generation, with a slash at its end: within the corpus, or as a path."""
    base = generation.folder
    return f"{base.relative_to(root).as_posix()}/" if base.is_relative_to(root) else f"{base}/"


def sources_sql(
    root: Path, generation: Generation, types: Mapping[str, Mapping[str, str]], limits: Thresholds
) -> dict[str, str]:
    """Return SQL for the rows of each kind that count at present. types: the DuckDB types of each kind's columns.

    Rows that newer attempts replace, or that are to be forgotten, are left out. The index is judged by `limits`. A pair counts
    once and if both segments are present: two attempts may hold the same pair. Rows of files that may name segments which do not
    exist count for present segments.
    """
    inside = _inside(root, generation)
    gone = {kind: read_sql([inside + file.path]) for kind, file in generation.gone.items()}

    def read(kind: str, paths: Sequence[str]) -> str | None:
        if not paths:
            return None
        names = [inside + path for path in paths]
        if not _lacks(types.get(kind, {}), [generation.folder / path for path in paths]):
            return read_sql(names)
        # Files that an older version has compacted lack the columns that were added since.
        added = empty(kind, places=False)
        return f"(FROM {added} UNION ALL BY NAME FROM {read_sql(names, by_name=True)})"

    def rows(kind: str, loose: bool = False) -> str:
        return read(kind, generation.files(kind, loose)) or empty(kind)

    def empty(kind: str, places: bool = True) -> str:
        columns = [f'CAST(NULL AS {type_}) AS "{name}"' for name, type_ in types[kind].items()]
        if places:
            columns += [*(f"CAST(NULL AS VARCHAR) AS {name}" for name in ("unit", "file")), "0 AS file_row"]
        return f"(SELECT {', '.join(columns)} WHERE false)"

    def without(source: str, **keys: str) -> str:
        for name, key in keys.items():
            if name in gone:
                source = f"(SELECT own.* FROM {source} AS own ANTI JOIN {gone[name]} AS gone USING ({key}))"
        return source

    def unforgotten(source: str, *columns: str) -> str:
        if "gone_forgotten" not in gone:
            return source
        tests = " AND ".join(
            f"({name} IS NULL OR {name} NOT IN (SELECT segment_id FROM {gone['gone_forgotten']}))" for name in columns
        )
        return f"(SELECT * FROM {source} WHERE {tests})"

    settings = "true" if generation.fingerprint is None else f"fingerprint = {quoted(generation.fingerprint)}"
    records = f"(SELECT *, unit_id AS unit FROM {rows('units')} WHERE {settings})"
    found = {"records": without(records, gone_units="unit")}
    judge = Judge(limits)
    fresh = read("index", generation.files("index", judged=judge.key))
    index = judge.answers(fresh, read("index", generation.files("index", unlike=judge.key))) or empty("index")
    for kind, source in (("index", index), ("recordings", rows("recordings")), ("quarantine", rows("quarantine"))):
        found[kind] = without(source, gone_sources="unit, source_id")
    # Some segments of a recording may be forgotten.
    found["index"] = without(found["index"], gone_segments="unit, segment_id")
    present = f"(SELECT segment_id FROM {found['index']})"
    found["references"] = rows("references")
    if gone:
        found["references"] = (
            f"(SELECT DISTINCT ON (segment_id, reference_id) * FROM {rows('references')} "
            f"WHERE segment_id IN {present} AND reference_id IN {present})"
        )
    for kind in _LATER:
        found[kind] = without(rows(kind), gone_units="unit", gone_segments="unit, segment_id")
        if generation.files(kind, loose=True):
            loose = without(rows(kind, loose=True), gone_units="unit", gone_segments="unit, segment_id")
            counts = f"segment_id IN {present}"
            if kind == "decoupled":
                # Rows of `voxmill decouple` count with their unit: an attempt without a clip has no segment, and those of a unit
                # that a kill kept from being committed must not count, although a later unit may have segments of their ids.
                counts = (
                    f"CASE WHEN pair_id IS NULL THEN {counts} ELSE unit IN (SELECT unit FROM {found['records']}) END"
                )
            found[kind] = f"(FROM {found[kind]} UNION ALL BY NAME SELECT * FROM {loose} WHERE {counts})"
    # What was made of a forgotten clip, or has its words, is forgotten with it.
    found["decoupled"] = unforgotten(found["decoupled"], *MADE_OF)
    path = duplicates_path(root)
    marked = f" UNION ALL BY NAME FROM {read_sql([path.relative_to(root).as_posix()])}" if path.is_file() else ""
    found["duplicates"] = f"(FROM {empty('duplicates')}{marked})"
    return found


def _lacks(types: Mapping[str, str], files: Iterable[Path]) -> bool:
    """Return True if one of some compacted files lacks a column of its kind."""
    import pyarrow.parquet as pq

    return any(not types.keys() <= set(pq.read_schema(file).names) for file in files)


def read_sql(files: Iterable[str], by_name: bool = False) -> str:
    """Return SQL for the rows of Parquet files, named within the corpus or absolutely. by_name: files may lack columns."""
    paths = (quoted(file) if file.startswith("/") else f"corpus_folder() || {quoted(file)}" for file in files)
    return f"read_parquet([{', '.join(paths)}]{', union_by_name = true' if by_name else ''})"


def columns_sql(names: Iterable[str]) -> str:
    """Return column names for a SELECT. They are quoted because `full` is an SQL keyword."""
    return ", ".join(f'"{name}"' for name in names)
