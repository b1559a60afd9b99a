"""The report's part on descriptions of voices: how they compare with evidence, what they cost, what was dropped, and some to read.

All figures are aggregates that DuckDB computes (catalogs/query/macros.sql); only the examples are read row by row.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogs.query.views import result_rows
from catalogs.report.clips import Clip
from catalogs.report.pass_files import plain, read_pass_files
from catalogs.vocabulary.languages import language_name
from catalogs.vocabulary.voices import CLOSED, REGISTERS

if TYPE_CHECKING:
    import duckdb

_ROWS = 60
"""Most rows of a table."""
_VALUES = 16
"""Most values on a side of a confusion table: more than any vocabulary has."""
_EXAMPLES = {"repaired": 3, "dropped": 2, "agree": 2, None: 2}
"""Examples of each verdict for each annotator."""
_ANNOTATORS = 6
"""Most annotators with examples on the page."""
_ACTIONS = ("value", "phrase", "rendered", "caption_dropped", "dropped")

Rows = list[dict[str, Any]]
Examples = dict[str, list[str]]
"""Ids of segments by annotator."""


def descriptions_section(
    root: Path, connection: duckdb.DuckDBPyConnection, chosen: Examples, clips: Mapping[str, Clip]
) -> dict[str, Any] | None:
    """Return the values of descriptions.html; None if the corpus has no descriptions and no notes of passes.

    chosen: the examples that are shown (`example_ids`). clips: those of their clips for which the page has room.
    """
    notes = read_pass_files(root)
    described = bool(result_rows(connection, "SELECT 1 FROM descriptions LIMIT 1"))
    if not described:
        return {"notes": notes, "spending": []} if notes.passes or notes.verified or notes.unreadable else None
    checked = bool(result_rows(connection, "SELECT 1 FROM checks LIMIT 1"))
    attributes = result_rows(connection, f"SELECT * FROM agreement() LIMIT {_ROWS}")
    return {
        "notes": notes,
        "spending": result_rows(connection, f"SELECT * FROM spending() LIMIT {_ROWS}"),
        "verdicts": _verdicts(connection),
        "prose_only": result_rows(connection, _PROSE_ONLY) if checked else [],
        "attributes": _by_annotator(attributes),
        "confusions": _confusions(connection) if checked else {},
        "repairs": _repairs(connection) if checked else [],
        "discarded": result_rows(connection, f"SELECT * FROM discarded() LIMIT {_ROWS}"),
        "captions": _by_annotator(result_rows(connection, f"SELECT * FROM caption_variety() LIMIT {_ROWS}")),
        "voices": result_rows(connection, f"SELECT * FROM voice_consistency() LIMIT {_ROWS}"),
        "expressive": result_rows(connection, _EXPRESSIVE),
        "examples": _examples(connection, chosen, clips, checked),
    }


def _by_annotator(rows: Rows) -> dict[str, Rows]:
    found: dict[str, Rows] = defaultdict(list)
    for row in rows:
        found[row["annotator"]].append(row)
    return dict(found)


def _verdicts(connection: duckdb.DuckDBPyConnection) -> Rows:
    rows = result_rows(connection, f"SELECT * FROM verdicts() LIMIT {_ROWS}")
    for row in rows:
        row["language"] = language_name(row["language"]) if row["language"] else "unknown"
    return rows


def _repairs(connection: duckdb.DuckDBPyConnection) -> Rows:
    """Return the number of claims by action for each annotator and attribute."""
    found: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: dict.fromkeys(_ACTIONS, 0))
    for row in result_rows(connection, "SELECT * FROM repairs() LIMIT 1000"):
        counts = found[row["annotator"], row["attribute"]]
        counts[row["action"]] = counts.get(row["action"], 0) + row["claims"]
    order = sorted(found.items(), key=lambda item: (item[0][0], -sum(item[1].values()), item[0][1]))[:_ROWS]
    return [{"annotator": annotator, "attribute": name, "actions": counts} for (annotator, name), counts in order]


def _confusions(connection: duckdb.DuckDBPyConnection) -> dict[str, Rows]:
    """Return the confusion tables of the attributes by annotator: rows are claimed values, columns found ones."""
    rows = result_rows(connection, "SELECT * FROM confusion() WHERE \"where\" = 'json' ORDER BY claims DESC LIMIT 2000")
    tables: dict[str, dict[str, Rows]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        tables[row["annotator"]][row["attribute"]].append(row)
    return {
        annotator: [_confusion(name, found) for name, found in sorted(by_attribute.items(), key=_attribute_place)]
        for annotator, by_attribute in sorted(tables.items())
    }


def _attribute_place(item: tuple[str, Rows]) -> tuple[int, str]:
    return (list(CLOSED).index(item[0]) if item[0] in CLOSED else len(CLOSED), item[0])


def _confusion(attribute: str, rows: Rows) -> dict[str, Any]:
    """Return one table. A cell's share is of the claims in its row."""
    known = CLOSED.get(attribute, ())

    def ordered(side: str) -> list[str]:
        values = dict.fromkeys(row[side] for row in rows)
        return sorted(list(values)[:_VALUES], key=lambda value: (known.index(value) if value in known else 99, value))

    cells = {(row["claimed"], row["found"]): row for row in rows}
    claimed, found = ordered("claimed"), ordered("found")
    lines = []
    for value in claimed:
        total = sum(row["claims"] for row in rows if row["claimed"] == value)
        line = [cells.get((value, other)) for other in found]
        lines.append(
            {"claimed": value, "total": total, "cells": [_cell(value, cell, total) if cell else None for cell in line]}
        )
    return {"attribute": attribute, "found": found, "lines": lines}


def _cell(claimed: str, row: Mapping[str, Any], total: int) -> dict[str, Any]:
    return {
        "claims": row["claims"],
        "share": row["claims"] / total,
        "wrong": row["contradicted"] > row["claims"] / 2,
        "same": row["found"] == claimed,
    }


def example_ids(connection: duckdb.DuckDBPyConnection) -> Examples:
    """Return some described segments of each annotator and verdict."""
    most = max(_EXAMPLES.values())
    groups = result_rows(
        connection,
        # The first ids are an arbitrary but reproducible choice: ids are hashes.
        f"SELECT annotator, verdict, min(segment_id, {most}) AS ids FROM descriptions WHERE status = 'ok' GROUP BY ALL",
    )
    shown = sorted({row["annotator"] for row in groups})[:_ANNOTATORS]
    found: Examples = {name: [] for name in shown}
    for row in groups:
        if row["annotator"] in found:
            found[row["annotator"]] += row["ids"][: _EXAMPLES.get(row["verdict"], 0)]
    return found


def _examples(
    connection: duckdb.DuckDBPyConnection, chosen: Examples, clips: Mapping[str, Clip], checked: bool
) -> dict[str, Rows]:
    """Return some descriptions of each annotator and verdict, with players as long as the page has room for audio."""
    wanted = {(annotator, segment) for annotator, ids in chosen.items() for segment in ids}
    ids = sorted({segment for _, segment in wanted})
    if not ids:
        return {}
    rows = result_rows(connection, f"SELECT {_SHOWN} FROM descriptions WHERE segment_id IN (SELECT unnest(?))", ids)
    wrong: dict[tuple[str, str], Rows] = defaultdict(list)
    for check in result_rows(connection, _CONTRADICTED, ids) if checked else ():
        wrong[check["annotator"], check["segment_id"]].append(check)
    order = list(_EXAMPLES)
    rows = [row for row in rows if (row["annotator"], row["segment_id"]) in wanted and row["verdict"] in order]
    rows.sort(key=lambda row: (row["annotator"], order.index(row["verdict"]), row["segment_id"]))
    return _by_annotator(
        [
            _example(row, wrong[row["annotator"], row["segment_id"]]) | {"clip": clips.get(row["segment_id"])}
            for row in rows
        ]
    )


def _example(row: dict[str, Any], wrong: Rows) -> dict[str, Any]:
    """Return a description for its card: captions by register, each with what it was before a repair."""
    now = {(c["register"] or "", c["language"] or ""): c["text"] or "" for c in row["captions"] or ()}
    if not now:
        now = {(name, row["language"] or ""): row[name] for name in REGISTERS if row[name]}
    before = _answered_captions(row["answered"])
    captions = [
        {
            "register": key[0],
            "language": key[1],
            "text": now.get(key),
            "before": text if (text := before.get(key)) != now.get(key) else None,
        }
        for key in sorted({**now, **before}, key=_register_place)
    ]
    labels = row["labels"] or row["attributes"] or {}
    traits = [
        f"{name.replace('_', ' ')}: {value if isinstance(value, str) else ', '.join(value)}".replace("_", " ")
        for name, value in labels.items()
        if value and value != "unsure" and isinstance(value, str | list) and name != "emphasis"
    ]
    return row | {"captions": captions, "wrong": wrong, "traits": traits}


def _register_place(key: tuple[str, str]) -> tuple[int, str]:
    return (REGISTERS.index(key[0]) if key[0] in REGISTERS else len(REGISTERS), key[1])


def _answered_captions(answered: str | None) -> dict[tuple[str, str], str]:
    """Return the captions in the column `answered` by register and language; none if it is not as `voxmill verify` writes it."""
    try:
        captions = json.loads(answered or "{}")["captions"]
        return {
            (plain(caption["register"]), plain(caption["language"])): plain(caption["text"], 600)
            for caption in captions
        }
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


_SHOWN = (
    'segment_id, annotator, model, language, verdict, brief, style, "full", persona, captions, labels, attributes, answered,'
    " evidence"
)

_CONTRADICTED = """
SELECT annotator, segment_id, attribute, any_value(claimed) AS claimed, any_value(found) AS found, any_value(source) AS source,
    max(p) AS p, count(*) FILTER ("where" = 'json') AS json, count(*) FILTER ("where" = 'prose') AS prose
FROM checks WHERE state = 'contradict' AND segment_id IN (SELECT unnest(?))
GROUP BY annotator, segment_id, attribute ORDER BY attribute
"""

_PROSE_ONLY = f"""
SELECT annotator, count(*) FILTER (NOT json) AS prose_only, count(*) FILTER (json) AS json
FROM (
    SELECT annotator, segment_id, bool_or("where" = 'json') AS json
    FROM checks WHERE state = 'contradict' AND attribute <> 'leak' GROUP BY ALL
)
GROUP BY annotator ORDER BY annotator LIMIT {_ROWS}
"""

#: The 30 % of the kept clips of a language that are most expressive: what share of the described clips they are.
_EXPRESSIVE = f"""
WITH kept AS (
    SELECT segment_id, language, expressive_p FROM scanned WHERE kept AND isfinite(expressive_p)
),
bounds AS (SELECT language, quantile_cont(expressive_p, 0.7) AS bound FROM kept GROUP BY language),
ranked AS (
    SELECT segment_id, expressive_p > bound AS lively, expressive_p
    FROM kept JOIN bounds ON kept.language IS NOT DISTINCT FROM bounds.language
)
SELECT annotator, count(*) AS clips, avg(CAST(lively AS INT)) AS lively, avg(expressive_p) AS mean,
    (SELECT count(*) FROM ranked) AS all_clips, (SELECT avg(CAST(lively AS INT)) FROM ranked) AS all_lively,
    (SELECT avg(expressive_p) FROM ranked) AS all_mean
FROM descriptions JOIN ranked USING (segment_id) WHERE status <> 'unasked'
GROUP BY annotator ORDER BY annotator LIMIT {_ROWS}
"""
