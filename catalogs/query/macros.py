"""The table macros of the catalog as SQL: aggregates of descriptions and of their checks, and answers to questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from string import Template

from catalogs.corpus.thresholds import RULES, Rule, Thresholds
from catalogs.query.question_columns import FIELDS, SCORES
from catalogs.query.row_sources import list_sql, quoted
from catalogs.vocabulary.voices import CLOSED, UNSURE


def macros_sql() -> str:
    """Return SQL that creates the macros of macros.sql (descriptions) and questions.sql (the corpus)."""
    values = {
        "attributes": list_sql(CLOSED),
        "answered_paths": list_sql(f"$.attributes.{name}" for name in CLOSED),
        "labels": "[" + ", ".join(f"labels.{name}" for name in CLOSED) + "]",
        "unsure": "["
        + ", ".join(f"count(*) FILTER (answers[{at}] = '{UNSURE}')" for at, _ in enumerate(CLOSED, 1))
        + "]",
        "unsure_word": UNSURE,
        "field": _chosen("field", {name: f"CAST({name} AS VARCHAR)" for name in FIELDS}),
        "score": _chosen("score", {name: f"CAST({name} AS DOUBLE)" for name in SCORES}),
        "badness": _chosen("score", {name: _badness(rules) for name, rules in SCORES.items()}),
        "fails": _of_rules(_fails),
        "reason": _of_rules(lambda rule: quoted(rule.reason)),
    }
    texts = ((Path(__file__).parent / f"{name}.sql").read_text(encoding="utf-8") for name in ("macros", "questions"))
    return "\n".join(Template(text).substitute(values) for text in texts)


def _chosen(parameter: str, columns: Mapping[str, str]) -> str:
    """Return SQL for the one of several expressions that a macro's parameter names. Another name is an error that lists them."""
    cases = " ".join(f"WHEN {quoted(name)} THEN {sql}" for name, sql in columns.items())
    known = quoted(f"; known: {', '.join(columns)}")
    return (
        f"CASE {parameter} {cases} ELSE error('unknown {parameter} ' || coalesce({parameter}, 'null') || {known}) END"
    )


def _of_rules(sql: Callable[[Rule], str]) -> str:
    return _chosen("threshold", {rule.setting: sql(rule) for rule in RULES})


def _badness(rules: list[Rule]) -> str:
    """Return SQL for a number that is greatest for the worst clip. Of a score with two limits, the greater excess counts."""
    score = f"CAST({rules[0].column} AS DOUBLE)"
    if len(rules) == 1:
        return f"-{score}" if rules[0].side == "below" else score
    default = Thresholds()
    limits = ((rule.side, getattr(default, rule.setting)) for rule in rules)
    parts = (f"{limit!r} / {score}" if side == "below" else f"{score} / {limit!r}" for side, limit in limits)
    return f"greatest({', '.join(parts)})"


def _fails(rule: Rule) -> str:
    """Return SQL that is true if a row breaks `new_limit`, as `Thresholds.reasons` decides."""
    sign = "<" if rule.side == "below" else ">"
    test = f"CAST({rule.column} AS FLOAT) {sign} CAST(new_limit AS FLOAT)"
    noted = f" AND NOT coalesce(list_contains(flags, '{rule.unless}'), false)" if rule.unless else ""
    return f"({test}{noted})"
