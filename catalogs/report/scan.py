"""One scan of the segments for the whole report: the columns that it needs, in a temporary table of its connection.

A query over the view `segments` reads and plans all of a large corpus again; the report asks about 60.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalogs.corpus.columns import SEGMENT
from catalogs.corpus.thresholds import RULES

if TYPE_CHECKING:
    import duckdb

SCORES: tuple[str, ...] = tuple(
    dict.fromkeys([*(column.name for column in SEGMENT if column.histogram), *(rule.column for rule in RULES)])
)
"""Columns of scores: those with a histogram, and those that a threshold limits."""
_OTHERS = ("segment_id", "source_id", "kept", "reasons", "flags", "language", "speaker", "license", "expressive_p")


def scan(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the temporary tables `scanned` (a row per segment) and `referenced` (a row per kept segment with references).

    `scanned` has the columns of `_OTHERS` and `SCORES`, and `has_audio`. `referenced` has `segment_id`, `pairs` (their number),
    `best` and `least` (cosines).
    """
    columns = ", ".join(dict.fromkeys([*_OTHERS, *SCORES]))
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE scanned AS SELECT {columns}, shard IS NOT NULL AS has_audio FROM segments"
    )
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE referenced AS
        SELECT segment_id, count(*) AS pairs, max(cosine) AS best, min(cosine) AS least
        FROM reference_pairs SEMI JOIN (SELECT segment_id FROM scanned WHERE kept) USING (segment_id) GROUP BY segment_id
        """
    )
