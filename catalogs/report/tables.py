"""The tables of the report: totals, the funnel, languages, speakers, licenses, lengths, reference pairs and stages.

They are asked of the tables of `catalogs.report.scan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from catalogs.corpus.thresholds import REASON_WORDS
from catalogs.query.views import result_rows
from catalogs.vocabulary.languages import language, language_name

if TYPE_CHECKING:
    import duckdb

ROWS = 30
"""Most rows of a table."""
STAGE_LENGTHS: tuple[tuple[str, float], ...] = (
    ("LoRA", 30.0),
    ("stage 1", 60.0),
    ("stage 2", 180.0),
    ("stage 3", 300.0),
)
"""Longest clip (s) that each recipe of `voxmill train` takes."""
_OUTCOMES = ("kept", "rejected", "silence", "quarantined", "unaccounted")
_COSINES = tuple(round(0.70 + 0.05 * n, 2) for n in range(6))

Row = dict[str, Any]


def totals(connection: duckdb.DuckDBPyConnection) -> Row:
    """Return the figures at the top of the page."""
    found = result_rows(
        connection,
        """
        SELECT
            (SELECT coalesce(sum(duration_s), 0) FROM recordings) AS recorded_s,
            (SELECT count(*) FROM recordings) AS recordings,
            (SELECT count(DISTINCT session_id) FROM recordings) AS sessions,
            coalesce(sum(duration_s) FILTER (kept), 0) AS kept_s,
            count(*) AS segments,
            count(*) FILTER (kept) AS kept,
            count(DISTINCT speaker) FILTER (kept) AS speakers,
            count(DISTINCT language) FILTER (kept) AS languages,
            (SELECT coalesce(sum(pairs), 0)::BIGINT FROM referenced) AS pairs,
            (SELECT count(DISTINCT segment_id) FROM descriptions) AS described,
            (SELECT count(*) FROM quarantine) AS quarantined
        FROM scanned
        """,
    )[0]
    found["share"] = found["kept_s"] / found["recorded_s"] if found["recorded_s"] else None
    return found


def funnel(connection: duckdb.DuckDBPyConnection) -> list[Row]:
    """Return the rows of the view `funnel` with the meaning of each reason."""
    return [row | {"words": reason_words(row["reason"])} for row in result_rows(connection, "SELECT * FROM funnel")]


def reason_words(reason: str) -> str:
    """Return the meaning of a reason in words; the failure of a stage is named after the stage."""
    if reason.startswith("failed_"):
        return f"the stage {reason.removeprefix('failed_')} failed on it"
    known = {
        "silence": "between the segments: silence, music, noise",
        "quarantined": "recordings that could not be processed",
        "kept": "kept for training",
        "unaccounted": "in neither a segment nor silence (run fsck)",
    }
    return known.get(reason) or REASON_WORDS.get(reason) or reason.replace("_", " ")


def outcomes(rows: Sequence[Row]) -> list[Row]:
    """Return the funnel's rows added up by outcome, in the order of the bar."""
    total = sum(row["seconds"] for row in rows)
    added = []
    for outcome in _OUTCOMES:
        seconds = sum(row["seconds"] for row in rows if row["outcome"] == outcome)
        if seconds > 0:
            added.append({"outcome": outcome, "seconds": seconds, "share": seconds / total})
    return added


def languages(connection: duckdb.DuckDBPyConnection) -> list[Row]:
    """Return a row per language, those with most kept time first."""
    rows = result_rows(
        connection,
        """
        SELECT language AS code, coalesce(sum(duration_s) FILTER (kept), 0) AS kept_s, sum(duration_s) AS all_s,
            count(*) FILTER (kept) AS kept, count(DISTINCT speaker) FILTER (kept) AS speakers,
            avg(duration_s) FILTER (kept) AS mean_s, median(dnsmos_ovr) FILTER (kept) AS dnsmos
        FROM scanned WHERE language IS NOT NULL GROUP BY ALL ORDER BY kept_s DESC, all_s DESC, code
        """,
    )
    most = max((row["kept_s"] for row in rows), default=0) or 1
    for row in rows:
        row |= {"name": language_name(row["code"]), "bar": row["kept_s"] / most, "known": language(row["code"])}
    return rows


def speakers(connection: duckdb.DuckDBPyConnection) -> list[Row]:
    """Return the speakers with most kept time."""
    # Two queries: the most frequent gender, age and language are asked of these speakers only.
    return result_rows(
        connection,
        f"""
        WITH most AS (
            SELECT speaker FROM scanned WHERE kept AND speaker IS NOT NULL
            GROUP BY speaker ORDER BY sum(duration_s) DESC, speaker LIMIT {ROWS}
        ),
        own AS (
            SELECT segment_id, speaker, gender, age, session_id FROM segments
            WHERE segment_id IN (SELECT segment_id FROM scanned SEMI JOIN most USING (speaker) WHERE kept)
        )
        SELECT speaker, count(*) AS clips, sum(duration_s) AS seconds, mode(gender) AS gender, mode(age) AS age,
            mode(language) AS language, median(pitch_hz) AS pitch_hz, count(DISTINCT session_id) AS sessions,
            coalesce(sum(pairs), 0)::BIGINT AS pairs
        FROM own JOIN (SELECT segment_id, duration_s, language, pitch_hz FROM scanned) USING (segment_id)
        LEFT JOIN referenced USING (segment_id)
        GROUP BY speaker ORDER BY seconds DESC, speaker
        """,
    )


def balance(connection: duckdb.DuckDBPyConnection) -> list[Row]:
    """Return which share of the kept time the speakers with most of it have: the first, the first 10, 100 and so on."""
    rows = result_rows(
        connection,
        """
        WITH own AS (SELECT sum(duration_s) AS seconds FROM scanned WHERE kept AND speaker IS NOT NULL GROUP BY speaker),
        placed AS (
            SELECT row_number() OVER (ORDER BY seconds DESC) AS speakers, sum(seconds) OVER (ORDER BY seconds DESC ROWS
                UNBOUNDED PRECEDING) AS seconds, count(*) OVER () AS total, sum(seconds) OVER () AS all_s FROM own
        )
        SELECT speakers, seconds, seconds / all_s AS share FROM placed
        WHERE speakers IN (1, 10, 100, 1000, 10000) OR speakers = total ORDER BY speakers
        """,
    )
    return rows if len(rows) > 1 else []


def licenses(connection: duckdb.DuckDBPyConnection) -> list[Row]:
    """Return recordings, recorded time and kept time by license."""
    return result_rows(
        connection,
        """
        SELECT coalesce(license, 'not stated') AS license, recordings, seconds, coalesce(kept_s, 0) AS kept_s
        FROM (SELECT license, count(*) AS recordings, sum(duration_s) AS seconds FROM recordings GROUP BY ALL) AS recorded
        LEFT JOIN (SELECT license AS own, sum(duration_s) AS kept_s FROM scanned WHERE kept GROUP BY ALL)
            ON own IS NOT DISTINCT FROM license
        ORDER BY seconds DESC
        """,
    )


def lengths(connection: duckdb.DuckDBPyConnection) -> list[Row]:
    """Return how much of the kept time each recipe of the trainer takes."""
    parts = ", ".join(
        f"count(*) FILTER (duration_s <= {limit}) AS n{at}, coalesce(sum(duration_s) FILTER (duration_s <= {limit}), 0) AS s{at}"
        for at, (_, limit) in enumerate(STAGE_LENGTHS)
    )
    sums = f"SELECT coalesce(sum(duration_s), 0) AS seconds, {parts} FROM scanned WHERE kept"
    found = result_rows(connection, sums)[0]
    if not found["seconds"]:
        return []
    return [
        {
            "stage": name,
            "longest_s": limit,
            "segments": found[f"n{at}"],
            "seconds": found[f"s{at}"],
            "share": found[f"s{at}"] / found["seconds"],
        }
        for at, (name, limit) in enumerate(STAGE_LENGTHS)
    ]


def pairs(connection: duckdb.DuckDBPyConnection) -> Row:
    """Return figures of the reference pairs, and which share of the kept segments has one of at least each cosine."""
    counts = ", ".join(f"count(*) FILTER (best >= {cosine}) AS c{at}" for at, cosine in enumerate(_COSINES))
    found = result_rows(
        connection,
        f"""
        SELECT coalesce(sum(pairs), 0)::BIGINT AS pairs, count(*) AS targets, median(best) AS cosine, min(least) AS least,
            (SELECT count(*) FROM scanned WHERE kept) AS kept, {counts} FROM referenced
        """,
    )[0]
    found["curve"] = [
        {"cosine": cosine, "share": found[f"c{at}"] / found["kept"] if found["kept"] else 0.0}
        for at, cosine in enumerate(_COSINES)
    ]
    return found


def some_pairs(connection: duckdb.DuckDBPyConnection, count: int) -> list[Row]:
    """Return up to `count` reference pairs of kept segments: an arbitrary but reproducible choice."""
    return result_rows(
        connection,
        f"""
        WITH drawn AS (SELECT segment_id FROM referenced ORDER BY segment_id LIMIT 500)
        SELECT pair.segment_id, reference_id, cosine, gap
        FROM reference_pairs AS pair SEMI JOIN drawn USING (segment_id)
        JOIN (SELECT segment_id AS reference_id FROM scanned WHERE kept AND has_audio) USING (reference_id)
        ORDER BY pair.segment_id, reference_id LIMIT {count}
        """,
    )


def stages(connection: duckdb.DuckDBPyConnection) -> list[Row]:
    """Return the busy time of each stage."""
    rows = result_rows(
        connection,
        "SELECT stage, busy_s, (SELECT sum(seconds) FROM units) / nullif(busy_s, 0) AS speed "
        "FROM stages ORDER BY busy_s DESC",
    )
    most = max((row["busy_s"] for row in rows), default=0) or 1
    return [row | {"bar": row["busy_s"] / most} for row in rows]


def quarantine(connection: duckdb.DuckDBPyConnection) -> list[Row]:
    """Return what is in quarantine, at most 300 rows."""
    return result_rows(
        connection,
        f"SELECT path, stage, error, attempts, strftime(\"at\", '%Y-%m-%d %H:%M') AS seen "
        f"FROM quarantine ORDER BY stage, path LIMIT {10 * ROWS}",
    )
