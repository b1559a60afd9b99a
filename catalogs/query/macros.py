"""The table macros of the catalog as SQL: aggregates of descriptions and of their checks."""

from __future__ import annotations

from pathlib import Path
from string import Template

from catalogs.query.row_sources import list_sql
from catalogs.vocabulary.voices import CLOSED, UNSURE


def macros_sql() -> str:
    """Return SQL that creates the macros of macros.sql."""
    values = {
        "attributes": list_sql(CLOSED),
        "answered_paths": list_sql(f"$.attributes.{name}" for name in CLOSED),
        "labels": "[" + ", ".join(f"labels.{name}" for name in CLOSED) + "]",
        "unsure": "["
        + ", ".join(f"count(*) FILTER (answers[{at}] = '{UNSURE}')" for at, _ in enumerate(CLOSED, 1))
        + "]",
    }
    return Template((Path(__file__).parent / "macros.sql").read_text(encoding="utf-8")).substitute(values)
