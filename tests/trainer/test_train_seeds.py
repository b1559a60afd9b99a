"""Counter-based numbers: functions of key and counter, evenly spread; shuffles that hold every element once and favor none."""

from __future__ import annotations

from collections import Counter
from math import factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.runtime.seeds import below, random_bits, shuffled, stream_key, uniform


def shuffle(size: int, *key: object) -> list[int]:
    places = np.arange(size)
    return [int(i) for i in shuffled(places, np.full(size, size), np.repeat(stream_key(*key), size))]


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**32))
def test_a_shuffle_holds_every_element_once(size: int, key: int) -> None:
    assert sorted(shuffle(size, key)) == list(range(size))


def test_places_of_several_shuffles_are_drawn_together_as_one_by_one() -> None:
    sizes = np.array([1, 2, 7, 64, 65, 1_000_003, 7])
    places = np.array([0, 1, 6, 63, 64, 999_999, 0])
    keys = random_bits(stream_key("a"), np.arange(7))
    together = shuffled(places, sizes, keys)
    alone = [int(shuffled(places[i : i + 1], sizes[i : i + 1], keys[i : i + 1])[0]) for i in range(7)]
    assert together.tolist() == alone and (together < sizes).all()


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_every_order_of_a_few_elements_is_equally_frequent(size: int) -> None:
    """Chi-square, five standard deviations above its mean."""
    orders, tries = factorial(size), 60 * factorial(size)
    keys = np.repeat(random_bits(stream_key("orders"), np.arange(tries)), size)
    drawn = shuffled(np.tile(np.arange(size), tries), np.full(size * tries, size), keys).reshape(tries, size)
    counts = np.array(list(Counter(map(tuple, drawn.tolist())).values()))
    assert len(counts) == orders
    assert ((counts - 60) ** 2 / 60).sum() < orders - 1 + 5 * (2 * (orders - 1)) ** 0.5 + 5


def test_places_of_a_large_shuffle_are_spread_evenly_and_without_runs() -> None:
    """Of a million and three elements, the first 50,000 places: every twentieth as frequent, neighbors unrelated."""
    size, count = 1_000_003, 50_000
    drawn = shuffled(np.arange(count), np.full(count, size), np.repeat(stream_key("large"), count))
    counts = np.bincount(drawn * 20 // size, minlength=20)
    assert np.abs(counts - count / 20).max() < 5 * (count / 20) ** 0.5
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.025


def test_numbers_follow_from_key_and_counter_and_are_spread_evenly() -> None:
    key = stream_key(1, "a")
    bits = random_bits(key, np.arange(100_000))
    assert random_bits(key, np.array([5, 99_999])).tolist() == bits[[5, 99_999]].tolist()
    values = uniform(bits)
    assert values.min() >= 0 and values.max() < 1 and abs(values.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(values, uniform(random_bits(stream_key(1, "b"), np.arange(100_000))))[0, 1]) < 0.02
    picked = below(bits, np.full(100_000, 3))
    assert np.bincount(picked).tolist() == pytest.approx([33_333] * 3, rel=0.03)


def test_the_numbers_stay_what_they_are() -> None:
    """A resumed run draws them again: another value is another version of the order (holdout.ORDER_VERSION)."""
    assert random_bits(stream_key(1, "read"), np.array([0, 1, 2**40])).tolist() == [
        8222965895231770221, 10028192004342691140, 6034454706477431273
    ]  # fmt: skip
    assert shuffle(10, 1) == [2, 9, 7, 3, 0, 1, 5, 8, 6, 4]
