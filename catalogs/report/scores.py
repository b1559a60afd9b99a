"""The scores of the segments: their histograms, and a sample with which the page tells what other thresholds would keep."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from catalogs.corpus.columns import SEGMENT
from catalogs.corpus.thresholds import RULES, Rule, Thresholds
from catalogs.report.charts import Histogram, histogram_svg
from catalogs.report.scan import SCORES
from catalogs.vocabulary.languages import language_name

if TYPE_CHECKING:
    import duckdb

BINS = 34
SAMPLE = 20_000
"""Segments of which the page carries all scores. The share that a threshold keeps is then within 0.7 % of the whole corpus."""
STEPS = 200
"""Places of a threshold on its axis."""
NO_VALUE = 255
"""Code of a score to which a rule does not apply."""
_LANGUAGES = 12
_BATCH_ROWS = 65_536

_UNITS = {column.name: column.unit for column in SEGMENT}
_LABELS = {column.name: column.histogram or column.meaning for column in SEGMENT}


@dataclass(frozen=True)
class Lever:
    """A threshold on the page: `edges` are the values that it can take, `place` is the present one, or -1 if it is off."""

    rule: Rule
    edges: Sequence[float]
    place: int

    def codes(self, values: np.ndarray, excused: np.ndarray) -> np.ndarray:
        """Return `[N] uint8`: a value is rejected at place p if its code is at most p (`below`) or more than p (`above`).

        values: `[N] float`, NaN for none. excused: rows to which the rule does not apply.
        """
        edges = np.float32(np.asarray(self.edges))
        found = np.searchsorted(edges, np.float32(values), "right" if self.rule.side == "below" else "left")
        return np.where(np.isnan(values) | excused, NO_VALUE, found).astype(np.uint8)


def scores_section(connection: duckdb.DuckDBPyConnection, thresholds: Thresholds) -> dict[str, Any]:
    """Return the values of the page's part on scores: `charts`, each with its `levers`, and `sample`. Needs `scan`."""
    total = connection.execute("SELECT count(*) FROM scanned").fetchall()[0][0]
    part = max(1, math.ceil(total / SAMPLE))
    # Not the first ids: those of an imported corpus have a meaning.
    numbers = ", ".join(f"coalesce(CAST({column} AS DOUBLE), 'nan') AS {column}" for column in SCORES)
    sample = connection.sql(
        f"SELECT kept, reasons, flags, language, {numbers} FROM scanned WHERE hash(segment_id) % {part} = 0"
    ).to_arrow_table()
    limits = {rule.setting: limit for rule, limit in thresholds.limits()}
    ranges = dict(_ranges(sample, limits))
    counts = _counts(connection, ranges)
    charts: list[dict[str, Any]] = []
    levers: list[Lever] = []
    for column, ends in ranges.items():
        own = [_lever(rule, ends, limits.get(rule.setting)) for rule in RULES if rule.column == column]
        drawn = [limit for rule in RULES if rule.column == column and (limit := limits.get(rule.setting)) is not None]
        data = _histogram(column, ends, counts[column], drawn)
        charts.append(
            {
                "label": data.label,
                "unit": data.unit,
                "column": column,
                "svg": histogram_svg(data, lines=not own),
                "levers": [(len(levers) + n, lever) for n, lever in enumerate(own)],
            }
        )
        levers += own
    return {"charts": charts, "sample": _sample(connection, sample, levers, total) if levers else None}


def _ranges(sample: pa.Table, limits: Mapping[str, float]) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield the ends of each column's axis: the 0.5 to 99.5 % quantiles and the limits near them.

    Columns without a finite value are left out.
    """
    for column in SCORES:
        values = _values(sample, column)
        values = values[np.isfinite(values)]
        if len(values):
            near = [limits[rule.setting] for rule in RULES if rule.column == column and rule.setting in limits]
            low, high = np.quantile(values, [0.005, 0.995]).tolist()
            yield column, _range(low, high, near)


def _range(low: float, high: float, limits: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the axis for values between low and high, with some margin."""
    spread = max(high - low, 1e-3)
    for limit in limits:  # A limit far from all data is left out: it would squeeze the data into one bin.
        if low - spread <= limit <= high + spread:
            low, high = min(low, limit), max(high, limit)
    margin = 0.02 * max(high - low, 1e-3)
    return low - margin, high + margin


def _counts(connection: duckdb.DuckDBPyConnection, ranges: Mapping[str, tuple[float, float]]) -> dict[str, np.ndarray]:
    """Return `[2, bins] int64` for each column: rejected and kept segments. The end bins hold all values beyond the axis.

    All are counted in one pass by numpy: DuckDB takes 80 ms for each column of a million segments.
    """
    counts = {column: np.zeros((2, BINS), np.int64) for column in ranges}
    numbers = ", ".join(f"CAST(coalesce({column}, 'nan') AS FLOAT) AS {column}" for column in ranges)
    if not ranges:
        return counts
    asked = connection.sql(f"SELECT CAST(kept AS TINYINT) AS kept, {numbers} FROM scanned")
    for batch in asked.to_arrow_reader(_BATCH_ROWS):
        kept = np.from_dlpack(batch.column("kept"))
        for column, (low, high) in ranges.items():
            values = np.from_dlpack(batch.column(column))
            is_known = np.isfinite(values)
            places = (values[is_known].astype(np.float64) - low) * (BINS / (high - low))
            bins = np.clip(places, 0, BINS - 1).astype(np.int64) + BINS * kept[is_known]
            counts[column] += np.bincount(bins, minlength=2 * BINS).reshape(2, BINS)
    return counts


def _histogram(column: str, ends: tuple[float, float], counts: np.ndarray, drawn: Sequence[float]) -> Histogram:
    low, high = ends
    rejected, kept = counts.tolist()
    shown = [limit for limit in drawn if low <= limit <= high]
    return Histogram(_LABELS[column], _UNITS[column], low, high, kept, rejected, shown)


def _lever(rule: Rule, ends: tuple[float, float], limit: float | None) -> Lever:
    """Return the places of a threshold on its axis. The present limit is one of them, exactly."""
    low, high = ends
    step = (high - low) / STEPS
    decimals = max(0, math.ceil(-math.log10(step)))
    edges = [round(low + step * n, decimals) for n in range(STEPS + 1)]
    if limit is None:
        return Lever(rule, edges, -1)
    place = min(STEPS, max(0, round((limit - low) / step)))
    edges[place] = limit
    # A limit far outside of the axis takes the place of its end: the order must hold.
    edges = [min(edge, limit) if n < place else max(edge, limit) for n, edge in enumerate(edges)]
    return Lever(rule, edges, place)


def _sample(
    connection: duckdb.DuckDBPyConnection, sample: pa.Table, levers: Sequence[Lever], total: int
) -> dict[str, Any]:
    """Return what the page needs to count again: for each segment its language, its length and its code for each threshold.

    Segments that something else than a threshold rejects are left out.
    """
    soft = {rule.reason for rule in RULES}
    kept = np.array(sample.column("kept").to_pylist(), bool)
    only_soft = [all(reason in soft for reason in reasons or ()) for reasons in sample.column("reasons").to_pylist()]
    shown_rows = kept | np.array(only_soft, bool)
    kept = kept[shown_rows]
    flags = [set(found or ()) for found in sample.column("flags").to_pylist()]
    coded, failed = [], np.zeros(len(kept), bool)
    for lever in levers:
        excused = np.array([lever.rule.unless in found for found in flags], bool)
        codes = lever.codes(_values(sample, lever.rule.column), excused)[shown_rows]
        if lever.place >= 0:
            fails = codes <= lever.place if lever.rule.side == "below" else codes > lever.place
            failed |= fails & (codes != NO_VALUE)
        coded.append(codes)
    # What is kept although a threshold rejects it, a person keeps: no threshold applies.
    for codes in coded:
        codes[kept & failed] = NO_VALUE
    names = [name for name, is_shown in zip(sample.column("language").to_pylist(), shown_rows, strict=True) if is_shown]
    exact = connection.execute(
        "SELECT language, sum(duration_s) FROM scanned WHERE kept GROUP BY ALL ORDER BY 2 DESC, 1"
    ).fetchall()
    shown = [code for code, _ in exact[:_LANGUAGES]]
    seconds = dict(exact)
    groups = [*shown, "other"] if len(exact) > len(shown) or set(names) - set(shown) else shown
    place = {code: n for n, code in enumerate(shown)}
    lengths = np.clip(_values(sample, "duration_s")[shown_rows] * 100, 0, 65_535).round().astype("<u2")
    return {
        "rows": len(kept),
        "total": total,
        "is_part": total > sample.num_rows,
        "weight": total / max(sample.num_rows, 1),
        "languages": [
            {
                "name": "other languages" if code == "other" else language_name(code) if code else "unknown",
                "kept_s": sum(s for c, s in exact[len(shown) :]) if code == "other" else seconds[code],
            }
            for code in groups
        ],
        "language_codes": _base64(np.array([place.get(name, len(shown)) for name in names], np.uint8)),
        "lengths": _base64(lengths),
        "levers": [
            {
                "setting": lever.rule.setting,
                "side": lever.rule.side,
                "edges": list(lever.edges),
                "place": lever.place,
                "codes": _base64(codes),
            }
            for lever, codes in zip(levers, coded, strict=True)
        ],
    }


def _values(table: pa.Table, column: str) -> np.ndarray:
    return np.from_dlpack(table.column(column).combine_chunks())  # `to_numpy` would import pandas.


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
