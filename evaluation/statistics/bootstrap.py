"""Percentile intervals over items, clustered by speaker: of means, of ratios, of shares and of medians."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluation.statistics.quantiles import expanded_tail
from evaluation.statistics.resampling import DRAWS, FEW, SEED, Units, patterns, units_of, weights

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval.

    `low`, `high`: None if the interval cannot be estimated; `reason` says why. `error`: the standard error. `items` and
    `clusters`: how many were measured. `scope`: the speakers that the interval is limited to, such as `these two voices`.
    """

    value: float
    low: float | None
    high: float | None
    error: float | None
    items: int
    clusters: int
    scope: str = ""
    reason: str = ""

    def scaled(self, factor: float) -> Estimate:
        """Return the estimate in another unit."""
        ends = sorted(end * factor for end in (self.low, self.high) if end is not None)
        low, high = ends if len(ends) == 2 else (None, None)
        error = None if self.error is None else self.error * abs(factor)
        return replace(self, value=self.value * factor, low=low, high=high, error=error)


def ratio_estimates(
    numerators: np.ndarray,
    denominators: np.ndarray,
    clusters: Sequence[str] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = SEED,
    level: float = LEVEL,
) -> list[Estimate | None]:
    """Return sum(numerators) / sum(denominators) of each column with its interval; both parts are resampled together.

    Both are float [N, C]. An item whose denominator is 0 or NaN is not measured in that column. None: no item is measured.
    """
    bottom = np.nan_to_num(np.asarray(denominators, np.float64))
    top = np.where(bottom != 0, np.nan_to_num(np.asarray(numerators, np.float64)), 0.0)
    names = None if clusters is None else np.asarray(clusters, dtype=object)
    found: list[Estimate | None] = [None] * bottom.shape[1]
    for items, columns in patterns(bottom != 0):
        if not len(items):
            continue
        units = units_of(None if names is None else list(names[items]), len(items))
        upper, lower = units.sums(top[np.ix_(items, columns)]), units.sums(bottom[np.ix_(items, columns)])
        drawn = None if _reason(units) else _ratios(units, upper, lower, draws, seed)
        for place, column in enumerate(columns):
            value = float(upper[:, place].sum() / lower[:, place].sum())
            found[column] = _estimate(value, None if drawn is None else drawn[:, place], units, len(items), level)
    return found


def mean_estimates(
    figures: np.ndarray,
    clusters: Sequence[str] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = SEED,
    level: float = LEVEL,
) -> list[Estimate | None]:
    """Return the mean over items of each column of figures [N, C] with its interval; NaN: not measured."""
    measured = ~np.isnan(figures)
    return ratio_estimates(
        np.nan_to_num(figures), measured.astype(np.float64), clusters, draws=draws, seed=seed, level=level
    )


def share_estimates(
    figures: np.ndarray,
    clusters: Sequence[str] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = SEED,
    level: float = LEVEL,
) -> list[Estimate | None]:
    """Return the mean of each column of figures [N, C] that are 0 or 1 (or a share over seeds) with its interval.

    If all are 0 or all are 1, nothing can be resampled: the interval is then the exact binomial one of as many trials as there are
    speakers; of as many as there are items if it is limited to a few voices.
    """
    found = mean_estimates(figures, clusters, draws=draws, seed=seed, level=level)
    return [_bounded(estimate, level) if estimate else None for estimate in found]


def mean_interval(values: np.ndarray | Sequence[float], clusters: Sequence[str] | None = None) -> Estimate:
    """Return the mean over items [N] with its interval. Raises ValueError if nothing is measured."""
    return _one(mean_estimates(np.asarray(values, np.float64)[:, None], clusters))


def ratio_interval(
    numerators: np.ndarray | Sequence[float],
    denominators: np.ndarray | Sequence[float],
    clusters: Sequence[str] | None = None,
) -> Estimate:
    """Return sum(numerators) / sum(denominators) over items [N], as errors / words. Raises ValueError if nothing is measured."""
    top, bottom = np.asarray(numerators, np.float64)[:, None], np.asarray(denominators, np.float64)[:, None]
    return _one(ratio_estimates(top, bottom, clusters))


def share_interval(flags: np.ndarray | Sequence[float], clusters: Sequence[str] | None = None) -> Estimate:
    """Return the share of items [N] that are 1 with its interval. Raises ValueError if nothing is measured."""
    return _one(share_estimates(np.asarray(flags, np.float64)[:, None], clusters))


def median_interval(
    values: np.ndarray | Sequence[float],
    clusters: Sequence[str] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = SEED,
    level: float = LEVEL,
) -> Estimate:
    """Return the median over items [N] with its interval. Raises ValueError if nothing is measured."""
    figures = np.asarray(values, np.float64)
    measured = np.flatnonzero(~np.isnan(figures))
    if not len(measured):
        raise ValueError("nothing is measured")
    names = None if clusters is None else [clusters[int(index)] for index in measured]
    figures = figures[measured]
    units = units_of(names, len(figures))
    order = np.argsort(figures, kind="stable")
    sorted_figures = figures[order]
    drawn = None
    if not _reason(units):
        blocks = []
        for block in weights(units, draws, seed):
            up_to = np.cumsum(block[:, units.of_item[order]], axis=1)
            half = up_to[:, -1:] / 2
            # With an even number of items, the median is between the two in the middle.
            low, high = (up_to < half).sum(axis=1), (up_to <= half).sum(axis=1)
            blocks.append((sorted_figures[low] + sorted_figures[np.minimum(high, len(figures) - 1)]) / 2)
        drawn = np.concatenate(blocks)
    return _estimate(float(np.median(figures)), drawn, units, len(figures), level)


def _ratios(units: Units, upper: np.ndarray, lower: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Return float64 [B, C]: the ratio in each draw. Denominators of measured items are positive."""
    parts = [(block @ upper) / (block @ lower) for block in weights(units, draws, seed)]
    return np.concatenate(parts)


def _estimate(value: float, drawn: np.ndarray | None, units: Units, items: int, level: float) -> Estimate:
    if drawn is None:
        return Estimate(value, None, None, None, items, units.clusters, units.scope, _reason(units))
    tail = expanded_tail(level, units.count, len(units.sizes))
    low, high = (float(end) for end in np.quantile(drawn, (tail, 1 - tail)))
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        reason = f"all {items} items have the same value"
        return Estimate(value, None, None, 0.0, items, units.clusters, units.scope, reason)
    # The factor by which the spread of a bootstrap is too small.
    factor = float(np.sqrt(units.count / (units.count - len(units.sizes))))
    return Estimate(value, low, high, float(drawn.std()) * factor, items, units.clusters, units.scope)


def _reason(units: Units) -> str:
    """Return why no interval can be estimated, or an empty text."""
    if units.count - len(units.sizes) < FEW - 1:
        of = f" of {units.scope}" if units.scope else ""
        return f"only {units.count} item{'' if units.count == 1 else 's'}{of}"
    return ""


def _bounded(estimate: Estimate, level: float) -> Estimate:
    if estimate.low is not None or estimate.value not in (0.0, 1.0):
        return estimate
    # An interval that is limited to a few voices is one over their items.
    bound = 1 - ((1 - level) / 2) ** (1 / (estimate.items if estimate.scope else estimate.clusters))
    low, high = (0.0, bound) if estimate.value == 0 else (1 - bound, 1.0)
    return replace(estimate, low=low, high=high, reason="")


def _one(found: list[Estimate | None]) -> Estimate:
    (estimate,) = found
    if estimate is None:
        raise ValueError("nothing is measured")
    return estimate
