"""Strengths of systems from comparisons in pairs with ties: the Bradley-Terry model with Davidson's extension.

Of systems a and b with strengths s, a wins with odds exp(s_a), b with exp(s_b), and a tie has tie * exp((s_a + s_b) / 2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.statistics.bootstrap import LEVEL
from evaluation.statistics.mos import Interval, beyond_agreement
from evaluation.statistics.resampling import SEED, Units, weights

DRAWS = 2_000
PRECISION = 0.01
"""Of a normal prior on strengths: it keeps them finite if a system wins or loses every comparison."""
_STEPS = 50

Winner = Literal["first", "second", "tie"]


@dataclass(frozen=True)
class Comparison:
    """A listener's answer to two systems."""

    listener: str
    first: str
    second: str
    winner: Winner


@dataclass(frozen=True)
class Strengths:
    """Strengths of systems, strongest first; their mean is 0 and their unit is the natural logarithm of odds.

    `low`, `high`: intervals over listeners, None with one listener. `differences[a, b]`: (low, high) of a minus b. Listeners who
    all lean to one side prove as much as `beyond_agreement` says. `tie`: the weight of ties; 0 if there are none.
    """

    systems: tuple[str, ...]
    strength: dict[str, float]
    low: dict[str, float] | None
    high: dict[str, float] | None
    differences: dict[tuple[str, str], tuple[float, float]]
    tie: float
    comparisons: int
    listeners: int

    def wins(self, first: str, second: str) -> float:
        """Return the chance that the first system wins against the second, if they do not tie."""
        return float(1 / (1 + np.exp(self.strength[second] - self.strength[first])))

    def told_apart(self, first: str, second: str) -> bool:
        """Return True if the interval of the two systems' difference does not contain 0."""
        low, high = self.differences.get((first, second), (-1.0, 1.0))
        return low > 0 or high < 0


def strengths(
    comparisons: Iterable[Comparison], *, draws: int = DRAWS, seed: int = SEED, level: float = LEVEL
) -> Strengths:
    """Fit strengths and their bootstrap intervals over listeners.

    Raises EvaluationError without comparisons, or if the systems fall into groups that were never compared with each other.
    """
    answers = list(comparisons)
    names = sorted({name for one in answers for name in (one.first, one.second)})
    if len(names) < 2 or any(one.first == one.second for one in answers):
        raise EvaluationError("strengths need comparisons of two different systems")
    number = {name: index for index, name in enumerate(names)}
    pairs = sorted({tuple(sorted((number[one.first], number[one.second]))) for one in answers})
    _check_connected(names, pairs)
    listeners = sorted({one.listener for one in answers})
    counts = _counts(answers, number, pairs, listeners)
    ties = bool(counts[:, :, 2].any())
    features = _features(pairs, len(names), ties)
    fitted = _fit(counts.sum(axis=0)[None], features)[0]
    order = tuple(sorted(names, key=lambda name: -fitted[number[name]]))
    low = high = None
    differences = {}
    if len(listeners) > 1:
        units = Units(np.arange(len(listeners)), (len(listeners),), len(listeners))
        flat = counts.reshape(len(listeners), -1)
        drawn = [_fit((block @ flat).reshape(-1, *counts.shape[1:]), features) for block in weights(units, draws, seed)]
        fits = np.concatenate(drawn)
        tail = (1 - level) / 2
        won = _net_wins(counts, pairs, len(names))

        def interval(drawn: np.ndarray, mean: float, wins: np.ndarray) -> Interval:
            first, last = np.quantile(drawn, (tail, 1 - tail))
            ends = float(first), float(last)
            return beyond_agreement(ends, mean, [wins], level) or ends

        ends = {name: interval(fits[:, n], fitted[n], won[:, n].sum(axis=1)) for name, n in number.items()}
        low, high = ({name: ends[name][side] for name in order} for side in (0, 1))
        for a, b in permutations(names, 2):
            one, other = number[a], number[b]
            drawn_apart = fits[:, one] - fits[:, other]
            differences[a, b] = interval(drawn_apart, fitted[one] - fitted[other], won[:, one, other])
    strength = {name: float(fitted[number[name]]) for name in order}
    tie = float(np.exp(fitted[-1])) if ties else 0.0
    return Strengths(order, strength, low, high, differences, tie, len(answers), len(listeners))


def _counts(
    answers: Sequence[Comparison], number: dict[str, int], pairs: Sequence[tuple[int, ...]], listeners: Sequence[str]
) -> np.ndarray:
    """Return float64 [L, P, 3]: answers of each listener to each pair: the lower number wins, the higher wins, tie."""
    place = {pair: index for index, pair in enumerate(pairs)}
    who = {name: index for index, name in enumerate(listeners)}
    found = np.zeros((len(listeners), len(pairs), 3))
    for one in answers:
        first, second = number[one.first], number[one.second]
        outcome = 2 if one.winner == "tie" else int((one.winner == "first") != (first < second))
        found[who[one.listener], place[min(first, second), max(first, second)], outcome] += 1
    return found


def _net_wins(counts: np.ndarray, pairs: Sequence[tuple[int, ...]], systems: int) -> np.ndarray:
    """Return float64 [L, S, S]: how much more often a listener preferred the one system than the other."""
    found = np.zeros((len(counts), systems, systems))
    for index, (a, b) in enumerate(pairs):
        found[:, a, b] = counts[:, index, 0] - counts[:, index, 1]
        found[:, b, a] = -found[:, a, b]
    return found


def _features(pairs: Sequence[tuple[int, ...]], systems: int, ties: bool) -> np.ndarray:
    """Return float64 [P, O, D]: what each outcome's log odds consist of; D: systems, and the tie's weight as the last."""
    found = np.zeros((len(pairs), 3 if ties else 2, systems + ties))
    for index, (a, b) in enumerate(pairs):
        found[index, 0, a] = found[index, 1, b] = 1
        if ties:
            found[index, 2, [a, b]] = 0.5
            found[index, 2, -1] = 1
    return found


def _fit(counts: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return float64 [B, D]: the parameters that maximize the penalized likelihood of counts [B, P, 3], by Newton's method.

    The likelihood is concave, so that the maximum is the only one. A step is shortened if it is longer than 2.
    """
    counts = counts[:, :, : features.shape[1]]
    size = features.shape[2]
    found = np.zeros((len(counts), size))
    totals = counts.sum(axis=2)
    for _ in range(_STEPS):
        odds = np.einsum("pod,bd->bpo", features, found)
        chance = np.exp(odds - odds.max(axis=2, keepdims=True))
        chance /= chance.sum(axis=2, keepdims=True)
        slope = np.einsum("bpo,pod->bd", counts - totals[:, :, None] * chance, features) - PRECISION * found
        mean = np.einsum("bpo,pod->bpd", chance, features)
        curve = np.einsum("bp,bpo,pod,poe->bde", totals, chance, features, features, optimize=True)
        curve -= np.einsum("bp,bpd,bpe->bde", totals, mean, mean, optimize=True)
        curve += PRECISION * np.eye(size)
        step = np.linalg.solve(curve, slope[:, :, None])[:, :, 0]
        longest = np.abs(step).max(axis=1, keepdims=True)
        found += step * np.minimum(1.0, 2.0 / np.maximum(longest, 1e-12))
        if longest.max() < 1e-8:
            break
    systems = size - (features.shape[1] == 3)
    found[:, :systems] -= found[:, :systems].mean(axis=1, keepdims=True)
    return found


def _check_connected(names: Sequence[str], pairs: Sequence[tuple[int, ...]]) -> None:
    group = list(range(len(names)))
    for a, b in pairs:
        old, new = group[a], group[b]
        group = [new if one == old else one for one in group]
    if len(set(group)) > 1:
        other = next(index for index, one in enumerate(group) if one != group[0])
        raise EvaluationError(
            f"{names[0]} and {names[other]} were never compared, not even through other systems; collect such comparisons"
        )
