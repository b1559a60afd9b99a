"""The comments of views and columns in DuckDB, made from their declarations in `catalogs.corpus.columns`."""

from __future__ import annotations

import re

from catalogs.corpus.columns import VIEW_COLUMNS, VIEW_WORDS

_DESCRIBE = re.compile(r'\s*(?:describe|desc)\s+(?:table\s+|view\s+)?(?:main\.)?"?(\w+)"?\s*;?\s*', re.IGNORECASE)


def comments_sql() -> str:
    """Return SQL that gives every view and every column its comment."""
    lines = [f"COMMENT ON VIEW {view} IS {_quote(words)};" for view, words in VIEW_WORDS.items()]
    for view, columns in VIEW_COLUMNS.items():
        lines += [f'COMMENT ON COLUMN {view}."{column.name}" IS {_quote(column.words)};' for column in columns]
    return "\n".join(lines)


def with_comments(sql: str) -> str:
    """Turn `describe VIEW` into a SELECT that also shows the comments, which DuckDB's DESCRIBE leaves out; keep other SQL."""
    found = _DESCRIBE.fullmatch(sql)
    if found is None or found.group(1).lower() not in VIEW_COLUMNS:
        return sql
    return (
        "SELECT column_name, data_type AS column_type, comment FROM duckdb_columns() "
        f"WHERE table_name = '{found.group(1).lower()}' ORDER BY column_index"
    )


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
