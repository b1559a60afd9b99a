"""Intervals cover what they promise, on simulated data; and say so where they cannot be estimated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats
from simulated_words import errors

from evaluation.statistics.bootstrap import (
    Estimate,
    mean_estimates,
    mean_interval,
    median_interval,
    ratio_estimates,
    ratio_interval,
    share_interval,
)
from evaluation.statistics.components import item_and_seed
from evaluation.statistics.quantiles import t_quantile
from evaluation.statistics.resampling import units_of, weights

TRIALS = 2000
"""Simulated data sets: the standard error of a coverage of 95 % is 0.5 points."""
TOLERANCE = 0.015


def coverage(found: Sequence[Estimate | None], truth: float) -> float:
    inside = [one.low <= truth <= one.high for one in found if one and one.low is not None and one.high is not None]
    assert len(inside) == len(found)
    return float(np.mean(inside))


@pytest.mark.parametrize("items", [12, 30, 200])
def test_intervals_of_means_cover_95_percent(items: int) -> None:
    figures = np.random.default_rng(1).normal(3.0, 2.0, (items, TRIALS))
    assert coverage(mean_estimates(figures, draws=1000), 3.0) == pytest.approx(0.95, abs=TOLERANCE)


def test_intervals_of_skewed_means_cover_95_percent() -> None:
    figures = np.random.default_rng(2).exponential(1.0, (200, TRIALS))
    assert coverage(mean_estimates(figures, draws=1000), 1.0) == pytest.approx(0.95, abs=TOLERANCE)


def test_intervals_of_word_errors_cover_95_percent_with_500_items() -> None:
    figures = errors(np.random.default_rng(3), 0.019, (500, TRIALS))
    assert coverage(mean_estimates(figures, draws=1000), 0.019) == pytest.approx(0.95, abs=TOLERANCE)


def test_intervals_of_ratios_cover_95_percent() -> None:
    random = np.random.default_rng(4)
    words = random.integers(3, 25, (300, TRIALS))
    # Long texts are harder here, so that the corpus ratio is not the mean of the ratios.
    rates = 0.02 + 0.004 * words
    wrong = random.binomial(words, rates)
    counts = np.arange(3, 25)
    truth = float(np.sum(counts * (0.02 + 0.004 * counts)) / counts.sum())
    assert coverage(ratio_estimates(wrong, words, draws=1000), truth) == pytest.approx(0.95, abs=TOLERANCE)


def test_intervals_over_speakers_cover_95_percent_and_those_over_items_do_not() -> None:
    random = np.random.default_rng(5)
    speakers = np.repeat(np.arange(40), 5)
    figures = random.normal(0.0, 1.0, (40, TRIALS))[speakers] + random.normal(0.0, 1.0, (200, TRIALS))
    clustered = mean_estimates(figures, [f"s{number}" for number in speakers], draws=1000)
    assert coverage(clustered, 0.0) == pytest.approx(0.95, abs=TOLERANCE)
    assert coverage(mean_estimates(figures, draws=1000), 0.0) < 0.85


def test_speakers_may_have_different_numbers_of_items() -> None:
    random = np.random.default_rng(6)
    speakers = np.repeat(np.arange(60), 1 + np.arange(60) % 7)
    figures = random.normal(0.0, 1.0, (60, TRIALS))[speakers] + random.normal(0.0, 1.0, (len(speakers), TRIALS))
    clustered = mean_estimates(figures, [f"s{number}" for number in speakers], draws=1000)
    assert coverage(clustered, 0.0) == pytest.approx(0.95, abs=TOLERANCE)


def test_an_interval_is_the_same_in_every_call_and_in_any_order_of_blocks() -> None:
    figures = np.random.default_rng(7).normal(size=50)
    assert mean_interval(figures) == mean_interval(figures)
    found = mean_interval(figures)
    assert found.error == pytest.approx(figures.std(ddof=1) / np.sqrt(50), rel=0.03)
    assert found.low is not None and found.low < found.value == pytest.approx(figures.mean())


def test_an_item_that_is_not_measured_does_not_count() -> None:
    figures = np.random.default_rng(8).normal(size=(40, 2))
    figures[30:, 1] = np.nan
    both, fewer = mean_estimates(figures)
    assert both is not None and both.items == 40
    assert fewer is not None and fewer.items == 30
    assert fewer == mean_interval(figures[:30, 1])
    assert mean_estimates(np.full((4, 1), np.nan)) == [None]


def test_with_two_voices_the_interval_is_that_of_these_two_voices() -> None:
    random = np.random.default_rng(9)
    voices = ["a"] * 30 + ["b"] * 30
    found = mean_interval(np.where(np.arange(60) < 30, 0.0, 10.0) + random.normal(size=60), voices)
    assert found.scope == "these two voices" and found.clusters == 2
    assert found.low is not None and found.high is not None
    # The items of a voice vary by 1; the voices lie 10 apart, which nothing can be said about.
    assert found.high - found.low == pytest.approx(2 * 1.96 / np.sqrt(60), rel=0.25)
    assert mean_interval(random.normal(size=9), ["a"] * 9).scope == "this voice"


@pytest.mark.parametrize(
    ("figures", "voices", "reason"),
    [
        ([0.5], None, "only 1 item"),
        ([0.5, 0.7, 0.1], None, "only 3 items"),
        ([0.5, 0.7, 0.1, 0.2], ["a", "a", "b", "b"], "only 4 items of these two voices"),
        ([0.5] * 20, None, "all 20 items have the same value"),
    ],
)
def test_an_interval_that_cannot_be_estimated_says_why(
    figures: list[float], voices: list[str] | None, reason: str
) -> None:
    found = mean_interval(figures, voices)
    assert (found.low, found.high, found.reason) == (None, None, reason)
    assert found.value == pytest.approx(np.mean(figures))


def test_a_share_of_none_or_all_has_the_exact_bound() -> None:
    none, every = share_interval([0.0] * 60), share_interval([1.0] * 60)
    exact = stats.binomtest(0, 60).proportion_ci().high
    assert none.low == 0.0 and none.high == pytest.approx(exact)
    assert every.low == pytest.approx(1 - exact) and every.high == 1.0
    some = share_interval([1.0] * 30 + [0.0] * 30)
    assert some.low is not None and some.low == pytest.approx(0.5 - 1.96 * 0.5 / np.sqrt(60), abs=0.02)


def test_the_corpus_ratio_weighs_items_by_their_words() -> None:
    found = ratio_interval([1] * 10 + [0] * 10, [10] * 10 + [40] * 10)
    assert found.value == pytest.approx(10 / 500)
    assert ratio_interval([1, 5, 0, 2, 1, 1], [10, 0, 10, 10, 10, 10]).items == 5


def test_intervals_of_medians_cover_about_95_percent() -> None:
    figures = np.random.default_rng(10).exponential(1.0, (101, 200))
    found = [median_interval(column, draws=1000) for column in figures.T]
    assert coverage(found, float(np.log(2))) == pytest.approx(0.95, abs=0.035)
    assert median_interval([1.0, 2.0, 3.0, 100.0, 4.0, 5.0]).value == 3.5


def test_weights_are_drawn_within_each_voice() -> None:
    units = units_of(["a", "b", "a", "b", "b"], 5)
    for block in weights(units, 100):
        sums = block[:, units.of_item]
        assert (sums[:, [0, 2]].sum(axis=1) == 2).all() and (sums[:, [1, 3, 4]].sum(axis=1) == 3).all()


def test_an_estimate_in_a_unit_with_the_other_sign_keeps_low_below_high() -> None:
    found = mean_interval(np.arange(20.0)).scaled(-100)
    assert found.low is not None and found.high is not None and found.low < found.value < found.high


def test_variance_is_split_into_item_seed_and_rest() -> None:
    random = np.random.default_rng(11)
    figures = random.normal(0, 2.0, (400, 1)) + random.normal(0, 0.7, (1, 40)) + random.normal(0, 1.0, (400, 40))
    figures[random.random(figures.shape) < 0.2] = np.nan
    found = item_and_seed(figures)
    assert found is not None
    assert found.first == pytest.approx(4.0, rel=0.15)
    assert found.second == pytest.approx(0.49, rel=0.6)
    assert found.rest == pytest.approx(1.0, rel=0.05)
    assert sum(found.shares) == pytest.approx(1.0)
    assert item_and_seed(figures[:, :1]) is None


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 30, 500])
@pytest.mark.parametrize("share", [0.9, 0.975, 0.995])
def test_quantiles_of_student_agree_with_scipy(degrees: int, share: float) -> None:
    assert t_quantile(share, degrees) == pytest.approx(stats.t.ppf(share, degrees), rel=0.02 if degrees == 3 else 0.005)
