"""The comments of views, macros and columns in DuckDB, made from their declarations in `catalogs.query.view_columns`."""

from __future__ import annotations

import re

from catalogs.query.view_columns import MACRO_COLUMNS, MACRO_WORDS, VIEW_COLUMNS, VIEW_WORDS

_DESCRIBE = re.compile(
    r'\s*(?:describe|desc)\s+(?:table\s+|view\s+)?(?:main\.)?"?(\w+)"?(?:\s*\(\s*\))?\s*;?\s*', re.IGNORECASE
)


def comments_sql() -> str:
    """Return SQL that gives every view, every column of one and every macro its comment."""
    lines = [f"COMMENT ON VIEW {view} IS {_quote(words)};" for view, words in VIEW_WORDS.items()]
    for view, columns in VIEW_COLUMNS.items():
        lines += [f'COMMENT ON COLUMN {view}."{column.name}" IS {_quote(column.words)};' for column in columns]
    lines += [f"COMMENT ON MACRO TABLE {macro} IS {_quote(words)};" for macro, words in MACRO_WORDS.items()]
    lines.append(
        "COMMENT ON MACRO corpus_folder IS 'The folder of this catalog, with a slash at its end; see docs/corpus.md to set it.';"
    )
    return "\n".join(lines)


def with_comments(sql: str) -> str:
    """Turn `describe VIEW` into a SELECT that also shows the comments, which DuckDB's DESCRIBE leaves out; keep other SQL.

    `describe MACRO` works as well.
    """
    found = _DESCRIBE.fullmatch(sql)
    name = found.group(1).lower() if found else ""
    if name in VIEW_COLUMNS:
        return (
            "SELECT column_name, data_type AS column_type, comment FROM duckdb_columns() "
            f"WHERE table_name = '{name}' ORDER BY column_index"
        )
    if name in MACRO_COLUMNS:
        words = ", ".join(f"({_quote(column.name)}, {_quote(column.words)})" for column in MACRO_COLUMNS[name])
        return (
            f"SELECT column_name, column_type, comment FROM (DESCRIBE SELECT * FROM {name}()) "
            f"LEFT JOIN (VALUES {words}) AS said(column_name, comment) USING (column_name)"
        )
    return sql


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
