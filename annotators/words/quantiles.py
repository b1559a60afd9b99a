"""Exact quantiles of more values than fit into memory. Two passes count the upper and the lower 16 bits of the values."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

Group = TypeVar("Group", bound=Hashable)

_LOW_BITS = 16


def group_quantiles(
    values: Callable[[], Iterable[tuple[Group, np.ndarray]]], levels: Sequence[float], fewest: int
) -> dict[Group, list[float]]:
    """Return the quantiles of each group at `levels`, equal to those of `np.quantile`. Groups of fewer than `fewest` values are
    left out.

    values: called twice. It yields the same (group, `[N] float32` without NaN) each time, in any number of pieces. Memory holds
    at most 65,536 counts per group and wanted rank, whatever the number of values.
    """
    upper: defaultdict[Group, Counter[int]] = defaultdict(Counter)
    for group, piece in values():
        _count(upper[group], _sortable(piece) >> _LOW_BITS)
    wanted = {group: _ranks(counts.total(), levels) for group, counts in upper.items() if counts.total() >= fewest}
    found = {group: {rank: _at(upper[group], rank) for rank in ranks} for group, ranks in wanted.items()}
    whole: defaultdict[Group, Counter[int]] = defaultdict(Counter)
    for group, piece in values():
        if group in found:
            bits = _sortable(piece)
            halves = np.array([half for half, _ in found[group].values()], dtype=np.uint32)
            _count(whole[group], bits[np.isin(bits >> _LOW_BITS, halves)])
    return {group: _interpolate(upper[group].total(), levels, found[group], whole[group]) for group in found}


def counted_quantiles(
    values: Callable[[], Iterable[tuple[Group, np.ndarray]]], levels: Sequence[float]
) -> dict[Group, tuple[int, list[float]]]:
    """Return (number of values, their quantiles at `levels`) of each group. values: as in `group_quantiles`."""
    counts: Counter[Group] = Counter()

    def counted() -> Iterator[tuple[Group, np.ndarray]]:
        counts.clear()
        for group, piece in values():
            counts[group] += len(piece)
            yield group, piece

    return {group: (counts[group], edges) for group, edges in group_quantiles(counted, levels, 1).items()}


def _sortable(values: np.ndarray) -> np.ndarray:
    """Return `[N] uint32` that sort as the float32 values do."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _float(sortable: int) -> float:
    bits = sortable ^ (1 << 31) if sortable >> 31 else sortable ^ 0xFFFFFFFF
    return float(np.array(bits, dtype=np.uint32).view(np.float32))


def _count(counts: Counter[int], values: np.ndarray) -> None:
    found, times = np.unique(values, return_counts=True)
    counts.update(dict(zip(found.tolist(), times.tolist(), strict=True)))


def _ranks(count: int, levels: Sequence[float]) -> set[int]:
    """Return the ranks, from 0, of the values that the quantiles lie between."""
    below = [int(level * (count - 1)) for level in levels]
    return {min(rank + step, count - 1) for rank in below for step in (0, 1)}


def _at(counts: Mapping[int, int], rank: int) -> tuple[int, int]:
    """Return (the value at a rank, its rank among the values equal to it)."""
    for value in sorted(counts):
        if rank < counts[value]:
            return value, rank
        rank -= counts[value]
    raise IndexError(rank)


def _interpolate(
    count: int, levels: Sequence[float], found: Mapping[int, tuple[int, int]], whole: Mapping[int, int]
) -> list[float]:
    """Return the quantiles. found: for each wanted rank, the upper 16 bits of its value and its rank among values with these."""
    exact = {
        rank: _float(_at({value: n for value, n in whole.items() if value >> _LOW_BITS == half}, within)[0])
        for rank, (half, within) in found.items()
    }
    result = []
    for level in levels:
        place = level * (count - 1)
        below = int(place)
        pair = [exact[below], exact[min(below + 1, count - 1)]]
        result.append(float(np.quantile(pair, place - below)))
    return result
