"""Counter-based random numbers: number i of a stream depends only on (key, i). Whole arrays are computed at once.

A stream is splitmix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators"), read at any position. No
state is stored, so that any choice of a run can be drawn again in any order.
"""

from __future__ import annotations

import hashlib

import numpy as np

from catalogs.candidates.held_out import hash_number as hash_number

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_ROUNDS = 8
_LEAST_BITS = 6
"""Minimum width of the Feistel network. With three bits, eight rounds do not make all orders of five elements equally frequent;
with six bits they do (tests/trainer/test_train_seeds.py)."""


def stream_key(*parts: object) -> np.ndarray:
    """Return uint64 [1]: the key of a stream."""
    return np.frombuffer(hashlib.sha256(repr(parts).encode()).digest()[:8], dtype="<u8").astype(np.uint64)


def random_bits(keys: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Return uint64 [N]: the numbers at `counters` (int64 [N] from 0) of the streams of `keys` (uint64 [1] or [N])."""
    values = (counters.astype(np.uint64) + np.uint64(1)) * _STEP
    values += keys
    return _mix(values)


def uniform(bits: np.ndarray) -> np.ndarray:
    """Convert random bits to float64 [N] in [0, 1)."""
    return (bits >> np.uint64(11)) * 2.0**-53


def below(bits: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Convert random bits to int64 [N] in 0..count - 1; counts must be below 2^31."""
    return ((bits >> np.uint64(32)) * counts.astype(np.uint64) >> np.uint64(32)).astype(np.int64)


def shuffled(places: np.ndarray, sizes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return int64 [N]: the elements at `places` (int64 [N]) of a shuffle of 0..size - 1 that depends only on a key.

    A Feistel network permutes the numbers below the next power of two. A result that is too large is permuted again until it
    fits ("cycle walking", Black and Rogaway 2002). No shuffle is stored.
    """
    sizes = sizes.astype(np.uint64)
    bits = np.maximum(_LEAST_BITS, np.frexp((sizes - np.uint64(1)).astype(np.float64))[1]).astype(np.uint64)
    low = bits >> np.uint64(1)
    found = _permuted(places.astype(np.uint64), low, bits - low, keys)
    found[sizes == 1] = 0
    again = np.flatnonzero(found >= sizes)
    while len(again):
        found[again] = _permuted(found[again], low[again], bits[again] - low[again], keys[again])
        again = again[found[again] >= sizes[again]]
    return found.astype(np.int64)


def _permuted(values: np.ndarray, low: np.ndarray, high: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return uint64 [N]: the values, permuted within 0..2^(low + high) - 1."""
    masks = ((np.uint64(1) << high) - np.uint64(1), (np.uint64(1) << low) - np.uint64(1))
    halves = [values >> low, values & masks[1]]
    for number in range(_ROUNDS):
        side, keys = number % 2, keys + _STEP
        halves[side] = halves[side] ^ (_mix(halves[1 - side] + keys) & masks[side])
    return (halves[0] << low) | halves[1]


def _mix(values: np.ndarray) -> np.ndarray:
    """Return uint64 [N]: the values after splitmix64's finalizer."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))
