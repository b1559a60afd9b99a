"""Differences of mean opinion scores: two systems that the same listeners rated on the same items are compared by these.

Intervals of each system overlap more than the interval of their difference contains 0, because strict listeners and hard items
move both systems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from evaluation.statistics.bootstrap import LEVEL
from evaluation.statistics.mos import Interval, Rating, beyond_agreement
from evaluation.statistics.resampling import BLOCK, DRAWS, SEED, Units, weights


@dataclass(frozen=True)
class Difference:
    """Mean score of the first system minus that of the second. None: not estimable, or no score differs."""

    mean: float
    crossed: Interval | None

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `not told apart`, for the first system."""
        if self.crossed is None or self.crossed[0] <= 0 <= self.crossed[1]:
            return "not told apart"
        return "better" if self.crossed[0] > 0 else "worse"


def differences(
    ratings: Sequence[Rating], *, draws: int = DRAWS, seed: int = SEED, level: float = LEVEL
) -> dict[tuple[str, str], Difference]:
    """Return the difference of each pair of systems, the better one first.

    The interval is a bootstrap in which listeners and items are drawn independently, the same ones for both systems. Where all
    listeners or all items prefer one system, it is widened by `beyond_agreement`: two who agree prove nothing.
    """
    scores = np.array([rating.score for rating in ratings])
    listeners, listener = np.unique([rating.listener for rating in ratings], return_inverse=True)
    items, item = np.unique([rating.item for rating in ratings], return_inverse=True)
    systems, system = np.unique([rating.system for rating in ratings], return_inverse=True)
    of_system = np.eye(len(systems))[system]
    means = scores @ of_system / of_system.sum(axis=0)
    drawn = None
    if len(listeners) > 1 and len(items) > 1:
        by_listener, by_item = (
            Units(listener, (len(listeners),), len(listeners)),
            Units(item, (len(items),), len(items)),
        )
        part = max(1, BLOCK // len(scores))
        parts = []
        for number, start in enumerate(range(0, draws, part)):
            rows = min(part, draws - start)
            of_listener = np.concatenate(list(weights(by_listener, rows, seed + 2 * number)))
            of_item = np.concatenate(list(weights(by_item, rows, seed + 2 * number + 1)))
            both = of_listener[:, listener] * of_item[:, item]
            with np.errstate(invalid="ignore"):
                parts.append((both @ (of_system * scores[:, None])) / (both @ of_system))
        drawn = np.concatenate(parts)
    order = sorted(range(len(systems)), key=lambda number: -means[number])
    found = {}
    for a, b in combinations(order, 2):
        crossed = None
        if drawn is not None:
            # A draw without a rating of one of the two is not counted.
            gaps = drawn[:, a] - drawn[:, b]
            low, high = np.nanquantile(gaps, ((1 - level) / 2, (1 + level) / 2))
            axes = [_gaps(scores, of_system, units, a, b) for units in (listener, item)]
            crossed = beyond_agreement((float(low), float(high)), float(means[a] - means[b]), axes, level)
        found[str(systems[a]), str(systems[b])] = Difference(float(means[a] - means[b]), crossed)
    return found


def _gaps(scores: np.ndarray, of_system: np.ndarray, units: np.ndarray, a: int, b: int) -> np.ndarray:
    """Return float64 [n]: mean score of system a minus that of b, of each listener or item with ratings of both.

    scores: float64 [R]. of_system: float64 [R, systems], one-hot. units: int [R].
    """
    count = int(units.max()) + 1
    totals, ratings = np.zeros((2, count, of_system.shape[1]))
    np.add.at(totals, units, of_system * scores[:, None])
    np.add.at(ratings, units, of_system)
    both = (ratings[:, a] > 0) & (ratings[:, b] > 0)
    gaps: np.ndarray = totals[both, a] / ratings[both, a] - totals[both, b] / ratings[both, b]
    return gaps
