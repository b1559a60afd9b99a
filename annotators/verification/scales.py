"""What is low and high in a corpus: the quantiles of its measures, held by ordinary values while it is small."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pyarrow as pa

from annotators.schema import KeptRows
from annotators.words.quantiles import counted_quantiles

LEVELS = (0.08, 0.25, 0.35, 0.65, 0.75, 0.92)
"""Quantiles: "low" is refuted above 0.65, "high" below 0.35, "mid" outside 0.08-0.92. Outside 0.25-0.75 the level to write is
low or high."""
_OWN = 50
"""Clips at which a corpus' own quantiles weigh as much as the ordinary values."""


@dataclass(frozen=True)
class _Ordinary:
    """Median and standard deviation of adult read speech. logarithmic: of the binary logarithm, with the deviation in
    octaves."""

    median: float
    deviation: float
    logarithmic: bool = False

    def edges(self) -> tuple[float, ...]:
        steps = [NormalDist().inv_cdf(level) * self.deviation for level in LEVELS]
        return tuple(self.median * 2**step if self.logarithmic else self.median + step for step in steps)


_ORDINARY: dict[tuple[str, str | None], _Ordinary] = {
    ("pitch_hz", "male"): _Ordinary(122.0, 0.28, logarithmic=True),
    ("pitch_hz", "female"): _Ordinary(205.0, 0.25, logarithmic=True),
    ("pitch_hz", None): _Ordinary(158.0, 0.45, logarithmic=True),
    ("rate_sps", None): _Ordinary(4.5, 1.3),
    ("effort_db", None): _Ordinary(-14.0, 4.5),
    ("pitch_range_st", None): _Ordinary(9.0, 4.0),
}
"""By (measure, group); of the group None: for every other group. Pitch without a gender is that of men and women together."""
MEASURES = ("pitch_hz", "rate_sps", "effort_db", "pitch_range_st")
_WITHIN = {"pitch_hz": "gender", "rate_sps": "language"}
COLUMNS = (*MEASURES, *_WITHIN.values())
"""Columns that `learn` reads."""


@dataclass(frozen=True)
class Place:
    """Where a value lies: the level to write, the levels that are refuted, and how clear it is."""

    level: str
    refuted: frozenset[str]
    p: float


class Scales:
    """The edges of low and high for each measure and group."""

    def __init__(self, own: Mapping[tuple[str, str | None], tuple[int, tuple[float, ...]]] | None = None) -> None:
        """own: for (measure, group), the number of clips and their quantiles at LEVELS."""
        self._own = dict(own or {})

    def place(self, measure: str, group: str | None, value: float) -> Place:
        """Return the place of a value within a group; for an unknown group, within the ordinary values."""
        low_mid, low, no_high, no_low, high, high_mid = self.edges(measure, group)
        refuted = set()
        if value < no_high:
            refuted.add("high")
        if value > no_low:
            refuted.add("low")
        if value < low_mid or value > high_mid:
            refuted.add("mid")
        level = "low" if value < low else "high" if value > high else "mid"
        quantile = float(np.interp(value, (low_mid, low, no_high, no_low, high, high_mid), LEVELS))
        return Place(level, frozenset(refuted), 0.5 + abs(quantile - 0.5))

    def edges(self, measure: str, group: str | None) -> tuple[float, ...]:
        """Return the values at LEVELS: the corpus' own, shrunk to ordinary ones."""
        ordinary = (_ORDINARY.get((measure, group)) or _ORDINARY[measure, None]).edges()
        count, own = self._own.get((measure, group), (0, ordinary))
        return tuple((count * o + _OWN * a) / (count + _OWN) for o, a in zip(own, ordinary, strict=True))


def learn(kept: KeptRows) -> Scales:
    """Return the scales of a corpus. It is read twice; memory does not grow with it."""
    found = counted_quantiles(lambda: _measured(kept(COLUMNS)), LEVELS)
    return Scales({group: (count, tuple(edges)) for group, (count, edges) in found.items()})


def _measured(tables: Iterable[pa.Table]) -> Iterator[tuple[tuple[str, str | None], np.ndarray]]:
    """Yield ((measure, group), values `[N] float32`) without nulls."""
    import pyarrow.compute as pc

    for table in tables:
        for measure in MEASURES:
            rows = table.filter(pc.is_finite(table.column(measure)))
            values = rows.column(measure).to_numpy()
            if measure not in _WITHIN:
                yield (measure, None), values
                continue
            groups = np.array(rows.column(_WITHIN[measure]).to_pylist(), dtype=object)
            for group in sorted({g for g in groups.tolist() if g is not None}):
                yield (measure, group), values[groups == group]
