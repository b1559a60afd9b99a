"""Words for measured numbers: "fast" is fast for the corpus, within the language; "high" is high for the gender."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from annotators.schema import KeptRows
from annotators.words.quantiles import counted_quantiles
from catalogs.vocabulary.voices import PITCH_RANGES, PITCHES, RATES

PRIOR = 50
"""Weight of the absolute edges, in clips: edge = (n * quantile + PRIOR * absolute) / (n + PRIOR)."""
SURE_GENDER = 0.6
_FIVE, _THREE = (0.08, 0.25, 0.75, 0.92), (0.25, 0.75)
_MALE, _FEMALE = (64.7, 115.7, 149.7, 183.7), (120.2, 141.6, 184.5, 270.3)


@dataclass(frozen=True)
class Measure:
    """How a column becomes a level. quantiles: where one level ends, as shares of the group's clips, each in `_FIVE`; edges: the
    same as absolute numbers by group, None for any other."""

    column: str
    within: str | None
    levels: tuple[str, ...]
    quantiles: tuple[float, ...]
    edges: Mapping[str | None, tuple[float, ...]]


MEASURES: dict[str, Measure] = {
    "pitch": Measure(
        "pitch_hz",
        "gender",
        PITCHES[:5],
        _FIVE,
        {
            "male": _MALE,
            "female": _FEMALE,
            None: tuple(float(np.sqrt(low * high)) for low, high in zip(_MALE, _FEMALE, strict=True)),
        },
    ),
    "rate": Measure("rate_sps", "language", RATES[:5], _FIVE, {None: (2.5, 3.5, 5.5, 7.0)}),
    # Vocal effort: a recording's gain does not change it. Corpora of an earlier version have the level alone.
    "energy": Measure("effort_db", None, ("soft", "normal", "loud"), _THREE, {None: (-17.0, -11.0)}),
    "loudness": Measure("loudness_lufs", None, ("soft", "normal", "loud"), _THREE, {None: (-28.0, -18.0)}),
    "pitch_range": Measure("pitch_range_st", None, PITCH_RANGES, _THREE, {None: (4.0, 9.0)}),
}


class Levels:
    """Edges between levels, by attribute and group: quantiles of a corpus, drawn to absolute edges where a group is small."""

    def __init__(self) -> None:
        self._edges: dict[tuple[str, str | None], tuple[float, ...]] = {}

    def learn(self, kept: KeptRows) -> None:
        """Compute the quantiles of the corpus. Memory does not grow with it (annotators.words.quantiles)."""
        columns = [measure.column for measure in MEASURES.values()]
        columns += ["gender", "gender_p", "language"]
        for (name, value), (n, every) in counted_quantiles(lambda: _values(kept(columns)), _FIVE).items():
            measure = MEASURES[name]
            edges = [edge for level, edge in zip(_FIVE, every, strict=True) if level in measure.quantiles]
            self._edges[name, value] = tuple(
                (n * edge + PRIOR * fixed) / (n + PRIOR)
                for edge, fixed in zip(edges, _absolute(measure, value), strict=True)
            )

    def level(self, attribute: str, value: float | None, group: str | None = None) -> str | None:
        """Return the level of a measured value among its group, or None if nothing was measured."""
        if value is None or value != value:
            return None
        measure = MEASURES[attribute]
        key = (attribute, group if measure.within else None)
        edges = self._edges.get(key) or _absolute(measure, group)
        return measure.levels[sum(value > edge for edge in edges)]


def sure_gender(gender: str | None, p: float | None) -> str | None:
    """Return the gender of a clip if its probability is high enough, otherwise None."""
    return gender if gender in ("male", "female") and (p or 0.0) >= SURE_GENDER else None


def _absolute(measure: Measure, group: str | None) -> tuple[float, ...]:
    return measure.edges.get(group) or measure.edges[None]


def _values(tables: Iterator[pa.Table]) -> Iterator[tuple[tuple[str, str | None], np.ndarray]]:
    """Yield ((attribute, group), values `[N] float32`) without nulls."""
    for table in tables:
        for name, measure in MEASURES.items():
            values = table.column(measure.column).to_numpy().astype(np.float32)
            known = np.isfinite(values)
            if measure.within is None:
                yield (name, None), values[known]
                continue
            groups = _groups(table, measure.within)
            for group in dict.fromkeys(groups.tolist()):
                yield (name, group), values[known & (groups == group)]


def _groups(table: pa.Table, within: str) -> np.ndarray:
    """Return the group of each row, None if it is not known."""
    values: list[Any] = table.column(within).to_pylist()
    if within == "gender":
        values = [sure_gender(*pair) for pair in zip(values, table.column("gender_p").to_pylist(), strict=True)]
    groups = np.empty(len(values), dtype=object)
    groups[:] = values
    return groups
