"""Simulated word errors as in section 3 of evaluation.md: WER near 1.9 %, 9.5 words, half of the errors shared by systems."""

from __future__ import annotations

import numpy as np

WORDS = 9.5
RATE = 0.019
SPREAD = 0.73
"""Chance that a burst of errors ends after each error: with it, 100 items have an interval of +-1.16 points."""


def errors(random: np.random.Generator, rate: float, shape: tuple[int, ...]) -> np.ndarray:
    """Return WER float64 of items: errors come in short bursts."""
    bursts = random.poisson(rate * WORDS * SPREAD, shape)
    # The sum of n geometric lengths is n plus a negative binomial number.
    more = random.negative_binomial(np.maximum(bursts, 1), SPREAD)
    return np.asarray(np.where(bursts > 0, bursts + more, 0) / WORDS)


def two_systems(random: np.random.Generator, worse_by: float, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return WER of two systems on the same items; the second is worse by `worse_by`."""
    shared = errors(random, RATE / 2, shape)
    first, second = errors(random, RATE / 2, shape), errors(random, RATE / 2 + worse_by, shape)
    return shared + first, shared + second
