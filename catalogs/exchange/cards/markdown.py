"""Parts of a card in Markdown. Names and texts of a corpus come from outside: `cell` makes them harmless."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

TOP = 50
"""Rows of a table of the card."""


def cell(text: object, most: int = 300) -> str:
    """Return text that stays in its cell or line: one line, no column marks, no HTML."""
    return " ".join(str(text).replace("|", "/").replace("<", "&lt;").split())[:most]


def hours(seconds: float) -> str:
    """Return seconds as hours for a table: three digits that count."""
    value = seconds / 3600
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table; its cells are made harmless."""
    lines = [head, ["---"] * len(head), *[[cell(value) for value in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def hours_table(title: str, column: str, seconds: Mapping[str, float]) -> str:
    """Return a section with hours by a key; the key "" is `not stated`. Empty if there are none."""
    if not seconds:
        return ""
    listed = list(seconds.items())
    rows = [(key or "not stated", hours(value)) for key, value in listed[:TOP]]
    if rest := listed[TOP:]:
        rows.append((f"{len(rest)} others", hours(sum(value for _, value in rest))))
    return f"## {title}\n\n{table((column, 'hours'), rows)}"


def bullets(lines: Sequence[str]) -> str:
    """Return lines as a list; each is made harmless."""
    return "\n".join(f"* {cell(line, 2000)}" for line in lines)


def section(title: str, *parts: str) -> str:
    """Return a section of the parts that are not empty; empty if all are."""
    found = [part for part in parts if part]
    return "\n\n".join([f"## {title}", *found]) if found else ""


def said(seconds: Mapping[str, float]) -> str:
    """Return hours by a key as words: `en 12 h, de 3.1 h, not stated 0.2 h`."""
    listed = list(seconds.items())
    words = [f"{cell(key) or 'not stated'} {hours(value)} h" for key, value in listed[:TOP]]
    return ", ".join([*words, *([f"{len(listed) - TOP} others"] if len(listed) > TOP else [])])
