"""Compare folded cells with the pattern of a key, at all phases: the score, and the payload that explains it best."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from voxcpm.watermark.code import decode, recover
from voxcpm.watermark.keys import Key
from voxcpm.watermark.pattern import BANDS, FRAMES, FRAMES_PER_SLOT, pattern_of

Floats = NDArray[np.float32]
Spectra = NDArray[np.complex64]

_FIRST = 6
"""Phases of each comparison that are decoded first. Others follow only if their code bits could give more."""


@dataclass(frozen=True)
class Match:
    """The best explanation of cells by a key.

    score: sum of the cells, each times its sign, in standard deviations of a random pattern. For a wrong key it is about 6.
    """

    score: float
    phase: int  #: frames into the pattern at the first frame of the cells
    payload: int
    fits: bool  #: the checksum of the best code words
    readable: bool  #: the checksum of `payload`: of the best code words, or of others that are nearly as good
    offset: int = 0  #: index of the folded cells


def spectra_of(folded: Floats) -> Spectra:
    """Return the spectra over time [FRAMES / 2 + 1, N, BANDS] of folded cells [N, FRAMES, BANDS]."""
    return np.ascontiguousarray(np.fft.rfft(folded, axis=1).transpose(1, 0, 2)).astype(np.complex64)


@lru_cache(maxsize=8)
def key_spectra(key: Key) -> Spectra:
    """Return the conjugate spectra over time [FRAMES / 2 + 1, BANDS, 1 + CODE_BITS] of the planes of a key."""
    planes = pattern_of(key).planes().astype(np.float32)
    return np.ascontiguousarray(np.fft.rfft(planes, axis=1).conj().transpose(1, 2, 0)).astype(np.complex64)


def correlations(spectra: Spectra, key: Spectra) -> Floats:
    """Return the correlations [N, FRAMES, 1 + CODE_BITS] of folded cells with the pilot and each code bit, at each phase."""
    products = np.matmul(spectra, key)  # [F, N, 1 + CODE_BITS]
    return np.fft.irfft(products, FRAMES, axis=0).transpose(1, 0, 2).astype(np.float32, copy=False)


def best_matches(
    found: Floats, floor: float = 0.0
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return (sums [N], places [N], payloads [N], fits [N]) of the best phase of each of the correlations [N, FRAMES, 49].

    Exact above `floor`; a sum that does not exceed it is `floor`. A phase is left out only if its pilot and the sum of its absolute
    code bits cannot reach the best sum found.
    """
    count = len(found)
    bound = found[..., 0] + np.abs(found[..., 1:]).sum(axis=2)  # [N, FRAMES]
    first = np.argpartition(-bound, _FIRST, axis=1)[:, :_FIRST]
    best = _Best(count, floor)
    rows, ranks = np.nonzero(np.take_along_axis(bound, first, axis=1) > floor)
    best.decode(found, rows, first[rows, ranks])
    np.put_along_axis(bound, first, -np.inf, axis=1)
    best.decode(found, *np.nonzero(bound > best.sums[:, None]))
    return best.sums, best.places, best.payloads, best.fits


class _Best:
    """The best phase of each row so far."""

    def __init__(self, rows: int, floor: float) -> None:
        self.sums = np.full(rows, floor, np.float32)
        self.places = np.zeros(rows, np.int64)
        self.payloads = np.zeros(rows, np.int64)
        self.fits = np.zeros(rows, np.bool_)

    def decode(self, found: Floats, rows: NDArray[np.int64], places: NDArray[np.int64]) -> None:
        """Decode (row, place) pairs and keep what is better."""
        if not len(rows):
            return
        payloads, fits, scores = decode(found[rows, places, 1:])
        sums = found[rows, places, 0] + scores
        order = np.argsort(sums, kind="stable")
        top = np.full(len(self.sums), -1)
        top[rows[order]] = order
        mine = np.flatnonzero(top >= 0)
        mine = mine[sums[top[mine]] > self.sums[mine]]
        chosen = top[mine]
        self.sums[mine], self.places[mine] = sums[chosen], places[chosen]
        self.payloads[mine], self.fits[mine] = payloads[chosen], fits[chosen]


def slot_energies(folded: Floats) -> Floats:
    """Return the variance [N, FRAMES_PER_SLOT] of a random pattern's sum over folded cells [N, FRAMES, BANDS].

    The second axis is the frame with which a slot starts. The frames of a slot have the same sign, and neighbors
    resemble each other.
    """
    starts = range(FRAMES_PER_SLOT)
    return np.stack([_slot_sums(np.roll(folded, -at, axis=1)) for at in starts], axis=1)


def _slot_sums(folded: Floats) -> Floats:
    slots = folded.reshape(len(folded), -1, FRAMES_PER_SLOT, BANDS).sum(axis=2)
    return (slots**2).sum(axis=(1, 2))


def _scored(folded: Floats, spectra: Spectra, key: Spectra) -> Floats:
    """Return the correlations as scores [n, FRAMES, 1 + CODE_BITS]: those of a random pattern have a sum with variance 1."""
    energies = np.tile(slot_energies(folded), (spectra.shape[1] // len(folded), FRAMES // FRAMES_PER_SLOT))
    found = correlations(spectra, key)
    found *= (1 / np.sqrt(np.maximum(energies, 1e-9))).astype(np.float32)[..., None]
    return found


def match(folded: Floats, key: Key) -> Match:
    """Return the best match of a key to any of the folded cells [N, FRAMES, BANDS]."""
    found = _scored(folded, spectra_of(folded), key_spectra(key))
    scores, places, payloads, fits = best_matches(found)
    best = int(scores.argmax())
    place, payload, whole = int(places[best]), int(payloads[best]), bool(fits[best])
    recovered = None if whole else recover(found[best, place, 1:])
    if recovered is not None:
        payload = recovered
    return Match(float(scores[best]), -place % FRAMES, payload, whole, whole or recovered is not None, best)


def rotated(spectra: Spectra, decoys: int) -> Spectra:
    """Return spectra [F, decoys * N, BANDS] of spectra [F, N, BANDS] with their bands rotated by 1, 2, ... `decoys`."""
    twice = np.concatenate((spectra, spectra), axis=2)
    turns = sliding_window_view(twice, BANDS, axis=2)[:, :, BANDS - 1 : BANDS - 1 - decoys : -1]
    return np.ascontiguousarray(turns.transpose(0, 2, 1, 3)).reshape(len(spectra), -1, BANDS)


def decoy_scores(folded: Floats, key: Key, decoys: int, floor: float = 0.0) -> Floats:
    """Return the best scores [decoys] of keys without a mark in any of the folded cells [N, FRAMES, BANDS].

    A decoy is the pattern of `key` with its bands rotated, at least one band away: as random as any key, and free of charge. Scores
    that do not exceed `floor` are given as `floor`, which saves time.
    Raises ValueError if more than BANDS - 1 are asked for.
    """
    if not 0 <= decoys < BANDS:
        raise ValueError(f"{decoys} decoys: a pattern has 0 to {BANDS - 1}")
    if not decoys:
        return np.zeros(0, np.float32)
    found = _scored(folded, rotated(spectra_of(folded), decoys), key_spectra(key))
    return best_matches(found, floor)[0].reshape(decoys, len(folded)).max(axis=1)
