"""Mean opinion scores: ratings are crossed, because each listener rates many items and each item has many listeners.

An interval that takes ratings as independent (`naive`) is too narrow by a factor of two and more.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.statistics.bootstrap import LEVEL
from evaluation.statistics.components import Components, components
from evaluation.statistics.quantiles import t_quantile
from evaluation.statistics.resampling import BLOCK, DRAWS, SEED, Units, weights

Interval = tuple[float, float]


@dataclass(frozen=True)
class Rating:
    """A listener's score of one item of one system."""

    listener: str
    item: str
    system: str
    score: float


@dataclass(frozen=True)
class Opinion:
    """The mean opinion score of a system, with three intervals.

    `crossed`: bootstrap over listeners and items (conservative). `modeled`: from variance components of listener, item and rest.
    `naive`: Student's, as if ratings were independent; it is given because papers print it. None: not estimable.
    """

    system: str
    mean: float
    ratings: int
    listeners: int
    items: int
    crossed: Interval | None
    modeled: Interval | None
    naive: Interval | None
    variances: Components | None


def read_ratings(
    path: Path,
    *,
    listener: str = "listener",
    item: str = "item",
    system: str | Callable[[dict[str, str]], str] = "system",
    score: str = "score",
) -> list[Rating]:
    """Read a CSV file with one rating per row. The arguments name its columns; `system` may be computed from a row.

    Raises EvaluationError with the line's number for a missing column or a score that is not a number.
    """
    found = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            try:
                name = system(row) if callable(system) else row[system]
                found.append(Rating(row[listener], row[item], name, float(row[score])))
            except KeyError as error:
                raise EvaluationError(f"{path} has no column {error}; columns: {', '.join(row)}") from None
            except (TypeError, ValueError):
                raise EvaluationError(f"{path}, line {number}: {score} is {row[score]!r}, not a number") from None
    if not found:
        raise EvaluationError(f"{path} has no ratings")
    return found


def opinions(
    ratings: Iterable[Rating], *, draws: int = DRAWS, seed: int = SEED, level: float = LEVEL
) -> dict[str, Opinion]:
    """Return the mean opinion score of each system."""
    by_system: dict[str, list[Rating]] = {}
    for rating in ratings:
        by_system.setdefault(rating.system, []).append(rating)
    return {name: _opinion(name, found, draws, seed, level) for name, found in sorted(by_system.items())}


def _opinion(name: str, ratings: Sequence[Rating], draws: int, seed: int, level: float) -> Opinion:
    scores = np.array([rating.score for rating in ratings])
    listener_names, listener = np.unique([rating.listener for rating in ratings], return_inverse=True)
    item_names, item = np.unique([rating.item for rating in ratings], return_inverse=True)
    listeners, items, mean = len(listener_names), len(item_names), float(scores.mean())
    crossed = modeled = naive = variances = None
    if len(scores) > 1 and scores.std() > 0:
        naive = _around(mean, float(scores.std(ddof=1)) / math.sqrt(len(scores)), len(scores) - 1, level)
        if listeners > 1 and items > 1:
            drawn = crossed_means(scores, listener, item, draws, seed)
            tail = (1 - level) / 2
            low, high = np.quantile(drawn, (tail, 1 - tail))
            crossed = (float(low), float(high))
            try:
                variances = components(scores, listener, item)
                error = math.sqrt(variances.mean_variance)
                modeled = _around(mean, error, min(listeners, items) - 1, level) if error else None
            except ValueError:
                variances = None
    return Opinion(name, mean, len(scores), listeners, items, crossed, modeled, naive, variances)


def crossed_means(
    scores: np.ndarray, listener: np.ndarray, item: np.ndarray, draws: int = DRAWS, seed: int = SEED
) -> np.ndarray:
    """Return float64 [B]: means of scores [R] with listeners and items drawn independently of each other.

    The weight of a rating is that of its listener times that of its item. A draw in which no rating has weight is left out.
    """
    by_listener = Units(listener, (int(listener.max()) + 1,), 0)
    by_item = Units(item, (int(item.max()) + 1,), 0)
    found = []
    # In parts, so that the weights of all ratings in a block are bounded too.
    part = max(1, BLOCK // len(scores))
    for number, start in enumerate(range(0, draws, part)):
        rows = min(part, draws - start)
        listeners = np.concatenate(list(weights(by_listener, rows, seed + 2 * number)))
        items = np.concatenate(list(weights(by_item, rows, seed + 2 * number + 1)))
        both = listeners[:, listener] * items[:, item]
        total = both.sum(axis=1)
        found.append((both @ scores)[total > 0] / total[total > 0])
    return np.concatenate(found)


def beyond_agreement(
    interval: Interval | None, mean: float, axes: Iterable[np.ndarray], level: float = LEVEL
) -> Interval | None:
    """Return the interval of a preference, widened where all listeners, or all items, lean to the side of its mean.

    A bootstrap draws only listeners that were asked. If all n agree, no draw has one who does not, and the interval becomes a point
    however few they are. The exact binomial bound (Clopper-Pearson) says what n of n prove: the share of all listeners who lean to
    this side is at least a = ((1 - level) / 2) ** (1 / n). If the others lean to the other side as strongly, the mean is
    (2 a - 1) * mean; the interval reaches at least to there. It excludes 0 from 6 listeners on, as the sign test does. Items are
    drawn from more items too, so the same is true of them.

    interval: None for scores without variance. mean: positive if the first is preferred. axes: float [n] each, the mean of every
    listener, and of every item. None: not estimable, because all scores are ties.
    """
    low, high = interval or (mean, mean)
    for scores in axes:
        if len(scores) and mean and bool((np.sign(scores) == np.sign(mean)).all()):
            share = ((1 - level) / 2) ** (1 / len(scores))
            end = (2 * share - 1) * mean
            low, high = min(low, end), max(high, end)
    return (low, high) if high - low > 1e-9 * abs(mean) else None


def _around(mean: float, error: float, degrees: int, level: float) -> Interval:
    half = t_quantile(0.5 + level / 2, degrees) * error
    return mean - half, mean + half
