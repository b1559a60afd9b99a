"""Units of resampling: speakers, or the items of a few speakers; and their random weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 10_000
"""Bootstrap draws of an interval."""
SEED = 17
"""Intervals are the same in every call."""
FEW = 5
"""With fewer units than this, an interval cannot be estimated."""
FEW_VOICES = 12
"""With fewer speakers than this, an interval is one over their items, limited to these voices: with eight speakers a bootstrap over
them is too narrow, and flipping the signs of ten can hardly prove anything after a correction."""
BLOCK = 200_000
"""Weights in memory at one time; so few that they stay in the cache of a core."""

_NUMBERS = ("no", "one", "two", "three", "four")


@dataclass(frozen=True)
class Units:
    """What is resampled.

    `of_item`: int [N], the unit of each item; units are numbered stratum by stratum. `sizes`: units of each stratum, within which
    they are drawn. `clusters`: number of speakers. `scope`: empty, or the speakers that an interval is limited to.
    """

    of_item: np.ndarray
    sizes: tuple[int, ...]
    clusters: int
    scope: str = ""

    @property
    def count(self) -> int:
        """Number of units."""
        return sum(self.sizes)

    def sums(self, figures: np.ndarray) -> np.ndarray:
        """Return float64 [U, C]: the sum over the items of each unit, of figures [N, C]."""
        found = np.zeros((self.count, figures.shape[1]))
        np.add.at(found, self.of_item, figures)
        return found


def units_of(clusters: Sequence[str] | None, items: int) -> Units:
    """Return the units of items whose speakers are given; None: each item has its own speaker.

    With fewer than FEW_VOICES speakers the units are the items, drawn within each speaker.
    """
    if clusters is None:
        return Units(np.arange(items), (items,), items)
    if len(clusters) != items:
        raise ValueError(f"{items} items have {len(clusters)} speakers")
    _, cluster = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    count = int(cluster.max()) + 1 if items else 0
    if count == items:
        return Units(cluster, (items,), items)
    if count >= FEW_VOICES:
        return Units(cluster, (count,), count)
    place = np.empty(items, np.int64)
    place[np.argsort(cluster, kind="stable")] = np.arange(items)
    scope = "this voice" if count == 1 else f"these {_NUMBERS[count] if count < len(_NUMBERS) else count} voices"
    return Units(place, tuple(int(size) for size in np.bincount(cluster)), count, scope)


def weights(units: Units, draws: int = DRAWS, seed: int = SEED) -> Iterator[np.ndarray]:
    """Yield float64 [B, U] blocks of multinomial weights: how often each unit is drawn. Memory is bounded by BLOCK."""
    random = np.random.default_rng(seed)
    total = units.count
    block = max(1, BLOCK // max(total, 1))
    for start in range(0, draws, block):
        rows = min(block, draws - start)
        row = np.arange(rows)[:, None] * total
        first = np.cumsum((0, *units.sizes[:-1]))
        drawn = [
            random.integers(0, size, (rows, size)) + offset + row
            for size, offset in zip(units.sizes, first, strict=True)
        ]
        picks = np.concatenate(drawn, axis=1).ravel()
        yield np.bincount(picks, minlength=rows * total).reshape(rows, total).astype(np.float64)


def patterns(present: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (items, columns) for each distinct column of a mask [N, C]: columns that are measured on the same items."""
    _, which = np.unique(present, axis=1, return_inverse=True)
    which = which.reshape(-1)
    for number in range(int(which.max(initial=-1)) + 1):
        columns = np.flatnonzero(which == number)
        yield np.flatnonzero(present[:, columns[0]]), columns
