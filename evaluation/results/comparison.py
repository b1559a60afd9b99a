"""A comparison of runs: its rows, and how they are printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from evaluation.statistics.paired import NOT_TOLD_APART

NAMED = 10
"""Missing items that the text names; the JSON names all."""


@dataclass(frozen=True)
class Row:
    """One value of a run against the baseline, in the unit of the table, for some of the items in common.

    `before`, `after`: means over the items that have a figure in both. `left_out`: items in common that lack one.
    `detectable`: the smallest difference that would be found with a power of 80 %. `p` is corrected for the other values of the
    same list, language and group level (Holm). `list`: `all` for the items of all lists together, if there are several.
    """

    run: str
    list: str
    language: str
    group: str
    level: str
    name: str
    title: str
    unit: str
    digits: int
    headline: bool
    items: int
    left_out: int
    before: float
    after: float
    difference: float
    low: float | None
    high: float | None
    scope: str
    reason: str
    p: float
    verdict: str
    detectable: float | None


@dataclass(frozen=True)
class Regression:
    """An item that became worse. The paths are those of the takes with the same seed that differ most; None: no audio."""

    run: str
    name: str
    title: str
    unit: str
    item: str
    item_name: str
    list: str
    language: str
    text: str
    seed_before: int
    seed_after: int
    before: float
    after: float
    path_before: str | None
    path_after: str | None
    status_before: str
    status_after: str


@dataclass(frozen=True)
class Missing:
    """Items that only one of the runs has, and values that only one of the runs has."""

    run: str
    in_common: int
    only_baseline: list[str] = field(default_factory=list)
    only_run: list[str] = field(default_factory=list)
    values_only_baseline: list[str] = field(default_factory=list)
    values_only_run: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """Runs against a baseline."""

    baseline: str
    runs: list[str]
    missing: list[Missing]
    rows: list[Row]
    regressions: list[Regression]

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    def text(self) -> str:
        """Return the comparison as Markdown: all items by list, then groups that differ, then regressions."""
        return "\n\n".join(part for one in self.missing for part in _parts(self, one) if part) + "\n"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a Markdown table; the first one is its head."""
    head, *body = [[text.replace("|", "\\|").replace("\n", " ") for text in row] for row in rows]
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def _parts(found: Comparison, missing: Missing) -> list[str]:
    rows = [row for row in found.rows if row.run == missing.run]
    whole = [row for row in rows if not row.group]
    groups = [row for row in rows if row.group and row.headline and row.verdict != NOT_TOLD_APART]
    tests = sum(bool(row.group) for row in rows)
    return [
        f"## {missing.run} against {found.baseline}: {missing.in_common} items in common",
        _missing(missing, found.baseline),
        _table(whole),
        f"Groups that differ ({len(groups)} of {tests} tests):\n\n{_table(groups)}" if groups else "",
        _regressions([one for one in found.regressions if one.run == missing.run]),
    ]


def _missing(missing: Missing, baseline: str) -> str:
    parts = [
        (f"Items that only {baseline} has", missing.only_baseline),
        (f"Items that only {missing.run} has", missing.only_run),
        (f"Values that only {baseline} has", missing.values_only_baseline),
        (f"Values that only {missing.run} has", missing.values_only_run),
    ]
    return "\n".join(f"* {words} ({len(names)}): {_named(names)}" for words, names in parts if names)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _table(rows: Sequence[Row]) -> str:
    """Return rows as a table; in one of groups, these have a column."""
    grouped = any(row.group for row in rows)
    head = ["list", "language", *(["group"] if grouped else []), "value", "unit", "n", "left out", "before", "after"]
    lines = [[*head, "difference [95 %]", "p (Holm)", "verdict", "detectable"]]
    for row in rows:
        group = [f"{row.group}: {row.level}"] if grouped else []
        lines.append(
            [
                *(row.list, row.language, *group, row.title, row.unit, str(row.items), str(row.left_out)),
                *(f"{row.before:.{row.digits}f}", f"{row.after:.{row.digits}f}", _difference(row)),
                *(f"{row.p:.2g}", row.verdict, _detectable(row)),
            ]
        )
    return markdown_table(lines)


def _difference(row: Row) -> str:
    value = f"{row.difference:+.{row.digits}f}"
    if row.low is None or row.high is None:
        return f"{value} [not estimable: {row.reason}]"
    scope = f"; {row.scope}" if row.scope else ""
    return f"{value} [{row.low:+.{row.digits}f}, {row.high:+.{row.digits}f}{scope}]"


def _detectable(row: Row) -> str:
    return "–" if row.detectable is None else f"{row.detectable:.{row.digits}f}"


def _regressions(found: Sequence[Regression]) -> str:
    if not found:
        return ""
    lines = [["value", "item", "before", "after", "text", "audio before", "audio after"]]
    for one in found:
        before = f"{one.before:.3g}" + (f" ({one.status_before})" if one.status_before != "ok" else "")
        after = f"{one.after:.3g}" + (f" ({one.status_after})" if one.status_after != "ok" else "")
        name = f"{one.list} {one.item_name or one.item}".strip()
        lines.append([one.title, name, before, after, one.text, one.path_before or "–", one.path_after or "–"])
    return f"Items that became worse by most:\n\n{markdown_table(lines)}"
