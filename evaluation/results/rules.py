"""Rules of a gate, read from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from catalogs.nearest import nearest
from evaluation.errors import EvaluationError

EACH = ("", "language", "list")


@dataclass(frozen=True)
class Rule:
    """What a run must keep against a baseline; or, with `at_most` or `at_least`, by itself.

    `value`: `metric.column`, or a column that one metric has. `margin`: in the unit of the table. `list`, `language`: limit the
    items. `each`: `language` or `list`, for one test for each of them.
    """

    value: str
    margin: float | None = None
    list: str = ""
    language: str = ""
    each: str = ""
    at_most: float | None = None
    at_least: float | None = None


def read_rules(path: Path) -> list[Rule]:
    """Return the rules of a file. Raises EvaluationError for an unknown key, a wrong type or a file without rules."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise EvaluationError(f"no file of rules at {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path}: {error}") from None
    if unknown := [name for name in table if name != "rule"]:
        raise EvaluationError(f"{path}: unknown key {unknown[0]}; rules are tables named [[rule]]")
    entries = table.get("rule")
    if not isinstance(entries, list) or not entries:
        raise EvaluationError(f"{path} has no [[rule]]")
    return [_rule(f"{path}, rule {number}", entry) for number, entry in enumerate(entries, 1)]


def _rule(place: str, entry: dict[str, Any]) -> Rule:
    known = {one.name: one for one in fields(Rule)}
    for key, given in entry.items():
        if key not in known:
            near = nearest(key, known)
            raise EvaluationError(f"{place}: unknown key {key!r}{f'; did you mean {near}?' if near else ''}")
        number = key in ("margin", "at_most", "at_least")
        if isinstance(given, bool) or not isinstance(given, (int, float) if number else str):
            raise EvaluationError(f"{place}: {key} is {given!r}, not {'a number' if number else 'text'}")
    if not entry.get("value"):
        raise EvaluationError(f"{place}: value is missing; give the name of one, such as words_clean.wer")
    rule = Rule(**entry)
    if rule.margin is not None and rule.margin < 0:
        raise EvaluationError(f"{place}: margin is {rule.margin}; it must be 0 or more")
    if rule.each not in EACH:
        raise EvaluationError(f"{place}: each is {rule.each!r}; use language or list")
    return rule


def resolve(name: str, known: Collection[str]) -> str:
    """Return the full name of a value. Raises EvaluationError for an unknown or an ambiguous one."""
    if name in known:
        return name
    found = [one for one in known if one.partition(".")[2] == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise EvaluationError(f"value {name!r} may be {', '.join(sorted(found))}; give the full name")
    near = nearest(name, known)
    raise EvaluationError(
        f"no value {name!r}{f'; did you mean {near}?' if near else ''}. See: voxmill evaluate metrics"
    )
