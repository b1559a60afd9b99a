"""Listening scores: intervals with listeners and items, on simulated and on real ratings; strengths from comparisons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluation.errors import EvaluationError
from evaluation.listen.differences import Difference, differences
from evaluation.listen.read import Scored, _versus
from evaluation.statistics.bradley_terry import Comparison, Winner, strengths
from evaluation.statistics.components import components
from evaluation.statistics.mos import Rating, opinions, read_ratings

SVCC23 = Path(__file__).resolve().parents[2].parent / "shared" / "evaluation" / "svcc23_listener_answers.csv"


def width(interval: tuple[float, float] | None) -> float:
    assert interval is not None
    return interval[1] - interval[0]


@pytest.mark.skipif(not SVCC23.is_file(), reason=f"the ratings of SVCC 2023 are not at {SVCC23}")
def test_on_real_ratings_the_crossed_interval_is_twice_as_wide_as_the_naive_one() -> None:
    ratings = read_ratings(
        SVCC23, listener="listener_name", item="sample_id", system=lambda row: row["sample_id"].split("-")[1]
    )
    found = opinions(ratings, draws=1000)
    assert len(ratings) == 25_440 and len(found) == 28
    assert {one.ratings for one in found.values()} >= {960}
    ratios = [width(one.crossed) / width(one.naive) for one in found.values()]
    assert np.mean(ratios) == pytest.approx(2.1, abs=0.1)
    assert min(ratios) > 1.85 and max(ratios) < 2.45
    modeled = [width(one.modeled) / width(one.naive) for one in found.values()]
    assert 1.2 < np.mean(modeled) < np.mean(ratios)


def simulated(random: np.random.Generator, listeners: int, items: int, keep: float = 1.0) -> list[Rating]:
    scores = (
        3.5
        + random.normal(0, np.sqrt(0.25), (listeners, 1))
        + random.normal(0, np.sqrt(0.15), (1, items))
        + random.normal(0, np.sqrt(0.6), (listeners, items))
    )
    kept = random.random(scores.shape) < keep
    return [Rating(f"l{a}", f"i{b}", "x", float(scores[a, b])) for a, b in zip(*np.nonzero(kept), strict=True)]


def test_fifty_listeners_and_twenty_items_have_four_times_the_naive_interval() -> None:
    random = np.random.default_rng(1)
    found = [opinions(simulated(random, 50, 20), draws=300)["x"] for _ in range(40)]
    assert np.mean([width(one.naive) / 2 for one in found]) == pytest.approx(0.06, abs=0.005)
    assert np.mean([width(one.modeled) / 2 for one in found]) == pytest.approx(0.23, abs=0.02)
    assert np.mean([width(one.crossed) / 2 for one in found]) == pytest.approx(0.22, abs=0.02)
    inside = [one.modeled is not None and one.modeled[0] < 3.5 < one.modeled[1] for one in found]
    naive = [one.naive is not None and one.naive[0] < 3.5 < one.naive[1] for one in found]
    assert np.mean(inside) >= 0.85 and np.mean(naive) < 0.6


def test_components_are_found_with_missing_ratings() -> None:
    ratings = simulated(np.random.default_rng(2), 300, 200, keep=0.1)
    _, listener = np.unique([one.listener for one in ratings], return_inverse=True)
    _, item = np.unique([one.item for one in ratings], return_inverse=True)
    found = components(np.array([one.score for one in ratings]), listener, item)
    assert found.first == pytest.approx(0.25, rel=0.25)
    assert found.second == pytest.approx(0.15, rel=0.35)
    assert found.rest == pytest.approx(0.6, rel=0.06)


def test_with_one_listener_only_the_naive_interval_exists() -> None:
    found = opinions([Rating("l", f"i{number}", "x", number % 3) for number in range(9)])["x"]
    assert (found.crossed, found.modeled) == (None, None) and found.naive is not None
    same = opinions([Rating(f"l{number}", "i", "x", 5) for number in range(9)])["x"]
    assert (same.mean, same.naive) == (5.0, None)


def preferred(listeners: int, items: int, ties: int = 0) -> list[Scored]:
    """Return answers that all prefer `good`, in either order of the clips, but for some ties of the first listener."""
    found = []
    for who in range(listeners):
        for what in range(items):
            last = (who + what) % 2
            score = 0.0 if who == 0 and what < ties else 1.0 if last else -1.0
            systems = ("bad", "good") if last else ("good", "bad")
            found.append(Scored(f"l{who}", f"i{what}", systems, "preference", score, "main", "t", None))
    return found


@pytest.mark.parametrize("ties", [0, 1])
def test_all_who_agree_prove_as_much_as_their_number(ties: int) -> None:
    for listeners, items, verdict in ((2, 24, "not told apart"), (5, 24, "not told apart"), (20, 5, "not told apart"),
                                      (6, 24, "worse"), (20, 24, "worse")):  # fmt: skip
        one = _versus(preferred(listeners, items, ties), 400, 1)["bad", "good"].opinion
        assert Difference(one.mean, one.crossed).verdict == verdict, (listeners, items)
        assert one.crossed and one.crossed[0] <= one.mean < one.crossed[1]
        if not ties:
            # A share of the listeners that a binomial test with all on one side does not reject.
            share = (one.crossed[1] / one.mean + 1) / 2
            assert share ** min(listeners, items) == pytest.approx(0.025)
    assert _versus(preferred(1, 24), 400, 1)["bad", "good"].opinion.crossed is None


def test_the_same_is_true_of_scores_that_differ_by_the_same_number() -> None:
    for listeners, verdict in ((2, "not told apart"), (20, "better")):
        ratings = [
            Rating(f"l{who}", f"i{what}", system, score + what % 3)
            for who in range(listeners)
            for what in range(12)
            for system, score in (("a", 3.0), ("b", 1.0))
        ]
        found = differences(ratings, draws=400)["a", "b"]
        assert found.mean == 2 and found.crossed and found.crossed[0] < 2 - 0.1 and found.verdict == verdict
    same = differences(
        [Rating(f"l{who}", f"i{what}", name, 3) for who in range(9) for what in range(9) for name in "ab"]
    )
    assert same["a", "b"].crossed is None and same["a", "b"].verdict == "not told apart"


def test_a_bad_file_of_ratings_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("listener,item,system,score\na,1,x,4\nb,1,x,good\n", encoding="utf-8")
    with pytest.raises(EvaluationError, match="line 3: score is 'good'"):
        read_ratings(path)
    path.write_text("listener,item,score\na,1,4\n", encoding="utf-8")
    with pytest.raises(EvaluationError, match="no column 'system'"):
        read_ratings(path)
    path.write_text("listener,item,system,score\n", encoding="utf-8")
    with pytest.raises(EvaluationError, match="no ratings"):
        read_ratings(path)


def test_few_listeners_who_agree_do_not_tell_strengths_apart() -> None:
    for listeners, apart in ((2, False), (5, False), (6, True)):
        answers = [Comparison(f"l{who}", "a", "b", "first") for who in range(listeners) for _ in range(8)]
        found = strengths(answers, draws=200)
        assert found.low and found.high and found.strength["a"] > 0 > found.strength["b"]
        assert (found.low["a"] > 0) == (found.high["b"] < 0) == found.told_apart("a", "b") == apart
        assert found.low["a"] < found.strength["a"] <= found.high["a"]


TRUE = {"strong": 1.0, "middle": 0.0, "weak": -1.0}
TIE = 0.8


def answered(random: np.random.Generator, listeners: int, per_pair: int) -> list[Comparison]:
    found = []
    names = list(TRUE)
    for listener in range(listeners):
        for a, b in [(0, 1), (1, 2), (2, 0)] * per_pair:
            first, second = np.exp(TRUE[names[a]]), np.exp(TRUE[names[b]])
            odds = np.array([first, second, TIE * np.sqrt(first * second)])
            winners: tuple[Winner, ...] = ("first", "second", "tie")
            winner = winners[int(random.choice(3, p=odds / odds.sum()))]
            found.append(Comparison(f"l{listener}", names[a], names[b], winner))
    return found


def test_known_strengths_and_ties_are_recovered() -> None:
    found = strengths(answered(np.random.default_rng(3), 100, 10), draws=300)
    assert found.systems == ("strong", "middle", "weak")
    for name, strength in TRUE.items():
        assert found.strength[name] == pytest.approx(strength, abs=0.12)
        assert found.low is not None and found.high is not None
        assert found.low[name] < found.strength[name] < found.high[name]
    assert found.tie == pytest.approx(TIE, rel=0.1)
    assert found.wins("strong", "weak") == pytest.approx(1 / (1 + np.exp(-2)), abs=0.03)
    assert found.told_apart("strong", "weak") and found.told_apart("weak", "strong")


def test_few_answers_do_not_tell_systems_apart_and_the_order_of_a_pair_does_not_matter() -> None:
    answers = [Comparison(f"l{n}", "a", "b", "first" if n % 2 else "second") for n in range(10)]
    found = strengths(answers)
    assert found.strength["a"] == pytest.approx(0.0, abs=1e-6) and found.tie == 0
    assert not found.told_apart("a", "b")
    turned = [Comparison(c.listener, c.second, c.first, "second" if c.winner == "first" else "first") for c in answers]
    assert strengths(turned) == found


def test_a_system_that_always_wins_has_a_finite_strength() -> None:
    found = strengths([Comparison(f"l{n}", "a", "b", "first") for n in range(20)], draws=50)
    assert 1 < found.strength["a"] < 10


def test_systems_that_were_never_compared_are_named() -> None:
    answers = [Comparison("l", "a", "b", "tie"), Comparison("l", "c", "d", "tie")]
    with pytest.raises(EvaluationError, match="a and c were never compared"):
        strengths(answers)
    with pytest.raises(EvaluationError, match="two different systems"):
        strengths([])
