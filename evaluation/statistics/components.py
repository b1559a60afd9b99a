"""Variance components of crossed factors: items and seeds, or listeners and items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Components:
    """Variances of two crossed random factors and of the rest; `mean_variance`: of the mean over all figures."""

    first: float
    second: float
    rest: float
    mean_variance: float

    @property
    def shares(self) -> tuple[float, float, float]:
        """Parts of the sum of the three; zeros if nothing varies."""
        total = self.first + self.second + self.rest
        return (self.first / total, self.second / total, self.rest / total) if total > 0 else (0.0, 0.0, 0.0)


def components(figures: np.ndarray, first: np.ndarray, second: np.ndarray) -> Components:
    """Return the variance components of figures [R] whose levels of two factors are int [R]; combinations may be absent.

    Henderson's method 1: four sums of squares are set equal to their expectations. A negative component counts as 0. Raises
    ValueError if the levels do not allow it, as with one level of a factor.
    """
    y = np.asarray(figures, np.float64)
    # The method is exact for any mean; without it, less is lost by rounding.
    y = y - y.mean()
    total = len(y)
    counts_first, counts_second = np.bincount(first), np.bincount(second)
    sums_first, sums_second = np.bincount(first, weights=y), np.bincount(second, weights=y)
    pair = np.unique(first.astype(np.int64) * (int(second.max()) + 1) + second, return_counts=True)
    in_first, in_second = pair[0] // (int(second.max()) + 1), pair[0] % (int(second.max()) + 1)
    both = pair[1].astype(np.float64) ** 2
    used_first, used_second = counts_first > 0, counts_second > 0
    squares = np.array(
        [
            np.sum(y**2),
            np.sum(sums_first[used_first] ** 2 / counts_first[used_first]),
            np.sum(sums_second[used_second] ** 2 / counts_second[used_second]),
            y.sum() ** 2 / total,
        ]
    )
    square_first, square_second = float((counts_first**2.0).sum()), float((counts_second**2.0).sum())
    expected = np.array(
        [
            [total, total, total],
            [total, np.sum(both / counts_first[in_first]), used_first.sum()],
            [np.sum(both / counts_second[in_second]), total, used_second.sum()],
            [square_first / total, square_second / total, 1.0],
        ],
        dtype=np.float64,
    )
    try:
        found = np.linalg.solve(expected[:3] - expected[3], squares[:3] - squares[3])
    except np.linalg.LinAlgError:
        raise ValueError("variance components cannot be estimated: a factor has one level, or is the other") from None
    a, b, rest = (max(float(part), 0.0) for part in found)
    variance = (a * square_first + b * square_second) / total**2 + rest / total
    return Components(a, b, rest, variance)


def item_and_seed(figures: np.ndarray) -> Components | None:
    """Return the components of item (first), seed (second) and rest, of figures [N, S]; NaN: not measured.

    None with fewer than two items or two seeds.
    """
    item, seed = np.nonzero(~np.isnan(figures))
    if len(np.unique(item)) < 2 or len(np.unique(seed)) < 2:
        return None
    try:
        return components(figures[item, seed], item, seed)
    except ValueError:
        return None
