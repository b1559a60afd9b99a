"""Paired tests find a planted difference at the stated number of items, and none where there is none."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_words import RATE, errors, two_systems

from evaluation.statistics.paired import (
    Difference,
    detectable,
    holm,
    items_needed,
    judged,
    paired_difference,
    paired_differences,
)

DRAWS = 1000


def verdicts(found: Sequence[Difference | None]) -> list[str]:
    return [one.verdict for one in judged(found) if one]


def alone(found: Sequence[Difference | None]) -> list[str]:
    """The verdict of each test as the only one of its table."""
    return [verdicts([one])[0] for one in found]


@pytest.mark.parametrize(
    ("items", "half_width", "apart", "unpaired"),
    [
        (100, 1.16, 1.8, 2.4),
        (350, 0.60, 0.9, 1.2),
        (500, 0.50, 0.8, 1.0),
        (1088, 0.34, 0.5, 0.7),
        (2020, 0.26, 0.4, 0.5),
    ],
)
def test_the_table_of_sizes_is_that_of_the_formula(
    items: int, half_width: float, apart: float, unpaired: float
) -> None:
    random = np.random.default_rng(1)
    first, second = two_systems(random, 0.0, (200_000,))
    error = 100 * first.std() / np.sqrt(items)
    assert 1.96 * error == pytest.approx(half_width, rel=0.1)
    # The table is rounded to 0.1 points and comes from a simulation.
    assert detectable(100 * (second - first).std() / np.sqrt(items)) == pytest.approx(apart, rel=0.08, abs=0.06)
    assert detectable(np.sqrt(2) * error) == pytest.approx(unpaired, rel=0.08, abs=0.06)


def test_one_point_is_found_at_the_stated_number_of_items_with_a_power_of_80_percent() -> None:
    random = np.random.default_rng(2)
    pilot = paired_difference(*two_systems(random, 0.01, (2000,)), "lower")
    needed = pilot.needed(0.01)
    assert needed is not None and 280 < needed < 600
    first, second = two_systems(random, 0.01, (needed, 600))
    found = alone(paired_differences(first, second, ["lower"] * 600, draws=DRAWS))
    assert found.count("worse") / 600 == pytest.approx(0.8, abs=0.07)
    assert found.count("better") == 0


def test_with_half_of_the_items_one_point_is_found_less_often() -> None:
    first, second = two_systems(np.random.default_rng(3), 0.01, (150, 600))
    found = alone(paired_differences(first, second, ["lower"] * 600, draws=DRAWS))
    assert 0.2 < found.count("worse") / 600 < 0.6


def test_systems_that_are_alike_are_told_apart_in_at_most_5_percent_of_tables() -> None:
    random = np.random.default_rng(4)
    tables, metrics = 400, 5
    first, second = two_systems(random, 0.0, (200, tables * metrics))
    found = paired_differences(first, second, ["lower"] * (tables * metrics), draws=DRAWS)
    wrong = sum(
        any(word != "not told apart" for word in verdicts(found[start : start + metrics]))
        for start in range(0, tables * metrics, metrics)
    )
    # Without Holm's correction it would be 1 - 0.95 ** 5 = 23 %.
    assert wrong / tables <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / tables)
    uncorrected = sum(word != "not told apart" for word in alone(found)) / len(found)
    assert 0.02 < uncorrected < 0.065


def test_p_is_uniform_if_the_systems_are_alike() -> None:
    figures = np.random.default_rng(5).normal(size=(2, 40, 2000))
    found = paired_differences(figures[0], figures[1], ["none"] * 2000, draws=2000)
    p_values = np.sort([one.p for one in found if one])
    assert np.abs(p_values - np.arange(1, 2001) / 2000).max() < 0.045


def test_p_is_uniform_over_speakers_whose_items_move_together() -> None:
    random = np.random.default_rng(6)
    speakers = np.repeat(np.arange(20), 6)
    change = random.normal(size=(20, 2000))[speakers] + 0.3 * random.normal(size=(120, 2000))
    names = [f"s{number}" for number in speakers]
    found = paired_differences(np.zeros_like(change), change, ["none"] * 2000, names, draws=1000)
    assert np.mean([one.p <= 0.05 for one in found if one]) == pytest.approx(0.05, abs=0.015)
    blind = paired_differences(np.zeros_like(change), change, ["none"] * 2000, draws=1000)
    assert np.mean([one.p <= 0.05 for one in blind if one]) > 0.3


@given(st.lists(st.integers(-4, 4), min_size=5, max_size=9))
def test_with_few_items_all_signs_are_tried(change: list[int]) -> None:
    found = paired_difference([0.0] * len(change), [float(one) for one in change], "none")
    signs = itertools.product((-1, 1), repeat=len(change))
    sums = [abs(sum(s * one for s, one in zip(sign, change, strict=True))) for sign in signs]
    assert found.p == pytest.approx(np.mean([one >= abs(sum(change)) for one in sums]))


def test_only_items_that_differ_decide() -> None:
    change = np.zeros(500)
    change[:6] = 1.0
    assert paired_difference(np.zeros(500), change, "none").p == pytest.approx(2 / 2**6)


def test_verdicts_know_the_direction() -> None:
    random = np.random.default_rng(7)
    first = random.normal(size=100)
    more = first + 1 + 0.1 * random.normal(size=100)
    assert paired_difference(first, more, "higher").verdict == "better"
    assert paired_difference(first, more, "lower").verdict == "worse"
    assert paired_difference(first, more, "none").verdict == "higher"
    assert paired_difference(more, first, "lower").verdict == "better"
    same = paired_difference(first, first, "higher")
    assert (same.verdict, same.p, same.detectable) == ("not told apart", 1.0, None)


def test_a_constant_difference_is_told_apart_without_an_interval() -> None:
    figures = np.arange(50.0)
    found = paired_difference(figures, figures + 1, "higher")
    assert found.verdict == "better" and found.estimate.low is None


def test_items_that_one_system_lacks_are_left_out() -> None:
    first = np.arange(12.0)
    second = np.append(np.arange(10.0) ** 1.1, [np.nan, 5.0])
    assert paired_difference(first, second).estimate.items == 11
    assert paired_differences(np.full((3, 1), np.nan), np.ones((3, 1)), ["none"]) == [None]


def test_holm_is_the_step_down_of_the_textbook() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_a_corrected_p_is_never_smaller_and_keeps_the_order(p_values: list[float]) -> None:
    corrected = [p for p in holm(p_values) if p is not None]
    assert all(before <= after <= 1 for before, after in zip(p_values, corrected, strict=True))
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    assert [corrected[index] for index in order] == sorted(corrected)


def test_half_of_the_difference_needs_four_times_the_items() -> None:
    assert items_needed(1.0, 100, 0.5) == 400
    assert items_needed(None, 100, 0.5) is None
    figures = errors(np.random.default_rng(8), RATE, (2, 300))
    found = paired_difference(figures[0], figures[1], "lower").scaled(100)
    needed = found.needed(1.0)
    assert needed is not None and found.detectable is not None
    assert needed == pytest.approx(300 * found.detectable**2, abs=1)
