"""The segments of a corpus whose license is allowed, as SQL: for training, exports and whoever else filters by license."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from catalogs.query.views import query
from catalogs.vocabulary.licenses import allowed_among_sql, allowed_sql

ANY = ("any",)
"""Every license, and none."""


def licensed_sql(root: str | Path, licenses: Sequence[str] = ANY) -> str:
    """Return an SQL condition over the view `segments`: those with an allowed license, in whatever spelling the corpus has it.

    Raises ValueError with one line for an entry that cannot be meant, QueryError for a corpus that cannot be read.
    """
    if (condition := allowed_sql(licenses)) == "true":
        return condition
    return allowed_among_sql(licenses, [name for (name,) in query(root, "SELECT DISTINCT license FROM segments")[1]])
