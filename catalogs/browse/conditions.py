"""What a person asks for as SQL: a search, facets and a condition, which is checked to be one expression over the views."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from catalogs.query.view_columns import MACRO_WORDS, VIEW_COLUMNS, VIEW_WORDS
from catalogs.query.views import QueryError

if TYPE_CHECKING:
    import duckdb

FACETS: dict[str, str] = {
    "kept": "CAST(kept AS VARCHAR)",
    "human": "human",
    "reason": "reasons[1]",
    "language": "language",
    "gender": "gender",
    "emotion": "emotion",
    "text_source": "text_source",
    "license": "license",
}
"""Facets by name, each as SQL of type VARCHAR. Null is shown, and asked for, as an empty text."""
SORTS = tuple(column.name for column in VIEW_COLUMNS["segments"] if column.name not in ("extra", "flags", "reasons"))
_LONGEST = 4000
"""Characters of a search or a condition."""
_DEPTH = 200
"""Levels of a condition."""
_MARKER = "voxmill_condition"


@dataclass(frozen=True)
class Asked:
    """What a person asks for."""

    search: str = ""
    where: str = ""
    facets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sort: str = ""
    descending: bool = False

    @classmethod
    def parse(cls, given: object) -> Asked:
        """Read it from JSON. Raises QueryError with one line for anything else."""
        if not isinstance(given, dict):
            raise QueryError("the request is not a JSON object")
        search, where, sort = (given.get(name) or "" for name in ("search", "where", "sort"))
        if not all(isinstance(text, str) and len(text) <= _LONGEST for text in (search, where, sort)):
            raise QueryError(f"search, condition and sort are texts of at most {_LONGEST} characters")
        facets = given.get("facets") or {}
        if not isinstance(facets, dict) or not facets.keys() <= FACETS.keys():
            raise QueryError(f"facets are: {', '.join(FACETS)}")
        for values in facets.values():
            if not isinstance(values, list) or len(values) > 100 or not all(isinstance(v, str) for v in values):
                raise QueryError("the values of a facet are a list of texts")
        if sort and sort not in SORTS:
            raise QueryError(f"cannot sort by {sort[:40]}; sort by a column of segments, e.g. snr_db")
        return cls(search.strip(), where.strip(), facets, sort, given.get("descending") is True)

    def sql(self, connection: duckdb.DuckDBPyConnection, matching: str) -> tuple[str, list[Any]]:
        """Return (condition, the values of its `?`). Raises QueryError for a condition that is not one expression.

        matching: SQL for the ids of the segments that contain `?`.
        """
        parts, values = ["true"], list[Any]()
        if self.search:
            parts.append(f"(segment_id = ? OR segment_id IN ({matching}))")
            values += [self.search, self.search]
        for name, chosen in self.facets.items():
            if chosen:
                parts.append(f"coalesce({FACETS[name]}, '') IN ({', '.join('?' * len(chosen))})")
                values += chosen
        if self.where:
            check_condition(connection, self.where)
            parts.append(f"(\n{self.where}\n)")
        return " AND ".join(parts), values

    @property
    def order(self) -> str:
        """ORDER BY, or nothing: the order of the corpus, which needs no sorting."""
        if not self.sort:
            return ""
        then = "seq, segment_id" if self.sort == "session_id" else "segment_id"
        return f'ORDER BY "{self.sort}" {"DESC" if self.descending else "ASC"} NULLS LAST, {then}'


def check_condition(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    """Raise QueryError unless a text is one SQL expression that reads nothing but the catalog's views.

    DuckDB parses the text as the argument of a function: whatever closes the bracket, adds a clause or a second statement is not
    parsed as exactly that. Of what it reads, only the names of views and our macros are allowed: no files, no functions that
    read any. The connection can write nothing and reads no file outside of the corpus in any case.
    """
    asked = f"SELECT 1 FROM segments WHERE {_MARKER}(\n{text}\n)"
    ((parsed,),) = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [asked]).fetchall()
    try:
        found = json.loads(parsed)
    except RecursionError:
        raise QueryError("the condition has too many levels") from None
    if found.get("error"):
        raise QueryError(f"the condition is not SQL: {' '.join(str(found.get('error_message')).split())}")
    node = found["statements"][0]["node"]
    call = node.get("where_clause") or {}
    alone = (
        len(found["statements"]) == 1
        and node["type"] == "SELECT_NODE"
        and not node["modifiers"]
        and not any(node.get(name) for name in ("group_expressions", "having", "qualify", "sample"))
        and not node["cte_map"]["map"]
        and call.get("function_name") == _MARKER
        and len(_arguments(call)) == 1
        and not call.get("filter")
        and not call.get("distinct")
        and not (call.get("order_bys") or {}).get("orders")
    )
    if not alone:
        raise QueryError("the condition is not one expression, e.g. snr_db > 20 and language = 'en'")
    for name in _foreign(_arguments(call)[0]):
        raise QueryError(f"a condition reads the views of the catalog only, not {name[:80]}")


def _arguments(call: Mapping[str, Any]) -> list[Any]:
    # DuckDB 1 calls them children.
    return list(call.get("arguments") or call.get("children") or ())


def _foreign(tree: Any) -> Iterator[str]:
    """Yield the names of all that an expression reads beside views, our macros and its WITH clauses."""
    nodes = list(_nodes(tree))
    named = {entry["key"].lower() for node in nodes for entry in _with_clauses(node)}
    for node in nodes:
        kind = node.get("type")
        if kind == "BASE_TABLE":
            path = (node.get("qualified_name") or {}).get("path") or [node.get("table_name")]
            if len(path) != 1 or str(path[0]).lower() not in VIEW_WORDS.keys() | named:
                yield ".".join(map(str, path))
        elif kind == "TABLE_FUNCTION":
            function = node.get("function") or {}
            name = str(function.get("function_name"))
            if name.lower() not in MACRO_WORDS.keys() | {"unnest", "range", "generate_series"}:
                yield f"{name}()"
        elif kind in ("SHOW_REF", "COLUMN_DATA", "PIVOT"):
            yield str(kind).lower()


def _with_clauses(node: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = node.get("cte_map")
    return list(found.get("map") or ()) if isinstance(found, dict) else []


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    waiting = [(tree, 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth > 8 * _DEPTH:
            raise QueryError("the condition has too many levels")
        if isinstance(item, dict):
            yield item
            waiting += [(value, depth + 1) for value in item.values()]
        elif isinstance(item, list):
            waiting += [(value, depth + 1) for value in item]
