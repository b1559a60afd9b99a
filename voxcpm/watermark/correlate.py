"""Compare folded cells with the pattern of a key, at all phases: the score, and the payload that explains it best."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from voxcpm.watermark.code import decode
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
    fits: bool  #: the checksum of the payload
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
    return np.fft.irfft(products, FRAMES, axis=0).transpose(1, 0, 2).astype(np.float32)


def best_matches(found: Floats) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return (sums [N], places [N], payloads [N], fits [N]) of the best phase of each of the correlations [N, FRAMES, 49].

    Exact: a phase is left out only if its pilot and the sum of its absolute code bits cannot reach the best sum found.
    """
    count = len(found)
    bound = found[..., 0] + np.abs(found[..., 1:]).sum(axis=2)  # [N, FRAMES]
    first = np.argpartition(-bound, _FIRST, axis=1)[:, :_FIRST]
    best = _Best(count)
    best.decode(found, np.repeat(np.arange(count), _FIRST), first.ravel())
    np.put_along_axis(bound, first, -np.inf, axis=1)
    best.decode(found, *np.nonzero(bound > best.sums[:, None]))
    return best.sums, best.places, best.payloads, best.fits


class _Best:
    """The best phase of each row so far."""

    def __init__(self, rows: int) -> None:
        self.sums = np.full(rows, -np.inf, np.float32)
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
    return (correlations(spectra, key) / np.sqrt(np.maximum(energies, 1e-9))[..., None]).astype(np.float32)


def match(folded: Floats, key: Key) -> Match:
    """Return the best match of a key to any of the folded cells [N, FRAMES, BANDS]."""
    found = _scored(folded, spectra_of(folded), key_spectra(key))
    scores, places, payloads, fits = best_matches(found)
    best = int(scores.argmax())
    return Match(float(scores[best]), int(-places[best] % FRAMES), int(payloads[best]), bool(fits[best]), best)


def decoy_scores(folded: Floats, key: Key, decoys: int) -> Floats:
    """Return the best scores [decoys] of keys without a mark in any of the folded cells [N, FRAMES, BANDS].

    A decoy is the pattern of `key` with its bands rotated, at least one band away: as random as any key, and free of charge.
    Raises ValueError if more than BANDS - 1 are asked for.
    """
    if not 0 < decoys < BANDS:
        raise ValueError(f"{decoys} decoys: a pattern has 1 to {BANDS - 1}")
    spectra = spectra_of(folded)
    turned = np.concatenate([np.roll(spectra, turn, axis=2) for turn in range(1, decoys + 1)], axis=1)
    scores = best_matches(_scored(folded, turned, key_spectra(key)))[0]
    return scores.reshape(decoys, len(folded)).max(axis=1)
