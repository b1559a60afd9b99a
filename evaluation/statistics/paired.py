"""Two systems on the same items: difference, interval, permutation test, Holm's correction and a verdict in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from evaluation.statistics.bootstrap import LEVEL, Estimate, mean_estimates
from evaluation.statistics.quantiles import normal_quantile
from evaluation.statistics.resampling import BLOCK, DRAWS, SEED, Units, patterns, units_of

ALPHA = 0.05
POWER = 0.8
EXACT = 13
"""Up to this number of units that differ, all 2^n signs are tried; above it, DRAWS random ones."""

Better = Literal["higher", "lower", "none"]
NOT_TOLD_APART = "not told apart"


@dataclass(frozen=True)
class Difference:
    """Second system minus first, over items that both have.

    `estimate`: the mean difference with its interval. `p`: two-sided, from sign flips. `p_holm`: corrected for the other tests of
    a table. `verdict`: better, worse or `not told apart`; higher or lower if no direction is better. `detectable`: the smallest
    difference that this number of items would find with a power of 80 %; None if the interval cannot be estimated.
    """

    estimate: Estimate
    p: float
    better: Better
    detectable: float | None
    p_holm: float | None = None
    verdict: str = ""

    def needed(self, difference: float) -> int | None:
        """Return the number of items that would find a difference with a power of 80 %, if they vary as these do."""
        return items_needed(self.detectable, self.estimate.items, difference)

    def scaled(self, factor: float) -> Difference:
        """Return the difference in another unit."""
        detectable = None if self.detectable is None else self.detectable * abs(factor)
        return replace(self, estimate=self.estimate.scaled(factor), detectable=detectable)


def paired_differences(
    first: np.ndarray,
    second: np.ndarray,
    better: Sequence[Better],
    clusters: Sequence[str] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = SEED,
    level: float = LEVEL,
) -> list[Difference | None]:
    """Return second minus first of each column of figures [N, C]; an item counts if both have a figure. None: no item counts.

    `better`: the direction of each column. Verdicts are those of each test alone until `judged` is called.
    """
    change = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    estimates = mean_estimates(change, clusters, draws=draws, seed=seed, level=level)
    p_values = _sign_flips(change, clusters, draws, seed)
    found: list[Difference | None] = []
    for estimate, p, direction in zip(estimates, p_values, better, strict=True):
        if estimate is None:
            found.append(None)
            continue
        error = estimate.error or None
        found.append(Difference(estimate, float(p), direction, None if error is None else detectable(error)))
    return found


def paired_difference(
    first: np.ndarray | Sequence[float],
    second: np.ndarray | Sequence[float],
    better: Better = "higher",
    clusters: Sequence[str] | None = None,
) -> Difference:
    """Return second minus first of items [N], with a verdict. Raises ValueError if no item has both figures."""
    before, after = np.asarray(first, np.float64)[:, None], np.asarray(second, np.float64)[:, None]
    (found,) = judged(paired_differences(before, after, [better], clusters))
    if found is None:
        raise ValueError("no item has a figure of both systems")
    return found


def judged(differences: Sequence[Difference | None], alpha: float = ALPHA) -> list[Difference | None]:
    """Return the differences of one table with Holm's correction and verdicts.

    Values without a direction are corrected among themselves. One that is equal on all items cannot be told apart and does not
    count. Told apart: the corrected p is at most `alpha`, and the interval (if there is one) does not contain 0.
    """
    found: list[Difference | None] = []
    families = [holm([one.p if one and _family(one) == kind else None for one in differences]) for kind in (0, 1)]
    for number, one in enumerate(differences):
        kind = None if one is None else _family(one)
        p = 1.0 if kind is None else families[kind][number]
        found.append(None if one is None or p is None else replace(one, p_holm=p, verdict=_verdict(one, p, alpha)))
    return found


def _family(one: Difference) -> int | None:
    """Return the family of tests of a difference; None: the systems are equal on all items, so that nothing is tested."""
    if one.estimate.value == 0 and not one.estimate.error:
        return None
    return 1 if one.better == "none" else 0


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p values corrected for their number by Holm's method; None stays None and does not count."""
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    found: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        found[index] = highest
    return found


def detectable(error: float, alpha: float = ALPHA, power: float = POWER) -> float:
    """Return the smallest difference that a two-sided test finds with a power, from the difference's standard error."""
    return (normal_quantile(1 - alpha / 2) + normal_quantile(power)) * error


def items_needed(detectable_now: float | None, items: int, difference: float) -> int | None:
    """Return the number of items at which `difference` is detectable, from what is detectable with `items`."""
    if detectable_now is None or difference == 0:
        return None
    return math.ceil(items * (detectable_now / difference) ** 2)


def _verdict(one: Difference, p: float, alpha: float) -> str:
    low, high, value = one.estimate.low, one.estimate.high, one.estimate.value
    contains_zero = low is not None and high is not None and low <= 0 <= high
    if p > alpha or contains_zero or value == 0:
        return NOT_TOLD_APART
    if one.better == "none":
        return "higher" if value > 0 else "lower"
    return "better" if (value > 0) == (one.better == "higher") else "worse"


def _sign_flips(change: np.ndarray, clusters: Sequence[str] | None, draws: int, seed: int) -> np.ndarray:
    """Return the two-sided p of each column of differences [N, C]: all signs are equally likely if the systems are alike."""
    names = None if clusters is None else np.asarray(clusters, dtype=object)
    found = np.ones(change.shape[1])
    for items, columns in patterns(~np.isnan(change)):
        if not len(items):
            continue
        units: Units = units_of(None if names is None else list(names[items]), len(items))
        sums = units.sums(change[np.ix_(items, columns)])
        few = (sums != 0).sum(axis=0) <= EXACT
        for place in np.flatnonzero(few):
            found[columns[place]] = _exact(sums[sums[:, place] != 0, place])
        if not few.all():
            found[columns[~few]] = _random(sums[:, ~few], draws, seed)
    return found


def _exact(sums: np.ndarray) -> float:
    if not len(sums):
        return 1.0
    signs = 1.0 - 2.0 * ((np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1)
    return float((np.abs(signs @ sums) >= _at_least(sums[:, None])[0]).mean())


def _random(sums: np.ndarray, draws: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    limit = _at_least(sums)
    beyond = np.zeros(sums.shape[1])
    block = max(1, BLOCK // len(sums))
    for start in range(0, draws, block):
        rows = min(block, draws - start)
        signs = 1.0 - 2.0 * random.integers(0, 2, (rows, len(sums)), dtype=np.int8)
        beyond += (np.abs(signs @ sums) >= limit).sum(axis=0)
    return np.asarray((1 + beyond) / (1 + draws))


def _at_least(sums: np.ndarray) -> np.ndarray:
    """Return the observed |sum| of each column [C], less what rounding may change: equal sums count as equal."""
    return np.abs(sums.sum(axis=0)) - 1e-9 * np.abs(sums).sum(axis=0)
