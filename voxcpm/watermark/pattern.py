"""The pattern of a key: which sign each band of the spectrum has at which time, and what a sign stands for.

Time is cut into slots of two frames. In each slot, the bands fall into four groups. The signs of the group `PILOT` are those of the
key; the signs of the other three are multiplied by one code bit each. A code word takes 16 slots (0.64 s), the pattern 64 (2.56 s).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from voxcpm.watermark.code import CODE_BITS, encode
from voxcpm.watermark.keys import Key

FRAMES_PER_SECOND = 50
"""Frames start every 20 ms and are 40 ms long."""

FRAMES_PER_SLOT = 2
SLOTS = 64
BANDS = 64

FRAMES = SLOTS * FRAMES_PER_SLOT
"""Frames of one period of the pattern: 2.56 s."""

PILOT = 0
"""The group without a code bit. Groups 1 to 3 have one each."""

_GROUP_SIZES = (22, 14, 14, 14)
_LOWEST_HZ = 300.0
_NARROWEST_HZ = 75.0
_RELATIVE_WIDTH = 0.03

_STRENGTHS = (0.6, 2.7, 2.2)
_MIDDLE_HZ, _HIGH_HZ = 1000.0, 3400.0
"""dB below the first edge, between the edges, and above. Voices have their energy below 1 kHz, where a change is heard most; a
telephone passes what is below 3.4 kHz."""

_LABEL = b"voxmill watermark pattern 1\0"
"""In front of the secret in the hash, so that a secret that is used elsewhere gives nothing away."""


@dataclass(frozen=True, eq=False)
class Pattern:
    """chips [SLOTS, BANDS] int8: +1 or -1, half of each group in a slot. groups [SLOTS, BANDS] int8: 0 to 3."""

    chips: NDArray[np.int8]
    groups: NDArray[np.int8]

    def signs(self, payload: int) -> NDArray[np.int8]:
        """Return the signs [FRAMES, BANDS] that carry a payload."""
        bits = encode(payload).reshape(-1, 3)
        carried = np.concatenate((np.ones((len(bits), 1), np.int8), bits), axis=1)
        slots = np.arange(SLOTS)[:, None] % len(bits)
        return np.repeat(self.chips * carried[slots, self.groups], FRAMES_PER_SLOT, axis=0)

    def planes(self) -> NDArray[np.int8]:
        """Return the chips of the pilot and of each code bit alone [1 + CODE_BITS, FRAMES, BANDS]; the others are 0."""
        planes = np.zeros((1 + CODE_BITS, SLOTS, BANDS), np.int8)
        slots, bands = np.indices((SLOTS, BANDS))
        bit = 1 + slots % (CODE_BITS // 3) * 3 + self.groups - 1
        planes[np.where(self.groups == PILOT, 0, bit), slots, bands] = self.chips
        return np.repeat(planes, FRAMES_PER_SLOT, axis=1)


@lru_cache(maxsize=64)
def pattern_of(key: Key) -> Pattern:
    """Return the pattern of a key. It depends on the secret alone, and is the same with every version of numpy."""
    random = hashlib.shake_256(_LABEL + key.secret).digest(SLOTS * BANDS * 8)
    order = np.frombuffer(random, "<u8").reshape(SLOTS, BANDS).argsort(axis=1, kind="stable")
    groups, chips = np.empty((SLOTS, BANDS), np.int8), np.empty((SLOTS, BANDS), np.int8)
    group_of = np.repeat(np.arange(4, dtype=np.int8), _GROUP_SIZES)
    chip_of = np.tile(np.array([1, -1], np.int8), BANDS // 2)
    np.put_along_axis(groups, order, np.broadcast_to(group_of, order.shape), axis=1)
    np.put_along_axis(chips, order, np.broadcast_to(chip_of, order.shape), axis=1)
    return Pattern(chips, groups)


def band_edges() -> NDArray[np.float64]:
    """Return the edges of the bands [BANDS + 1], Hz: 75 Hz wide, from 2.5 kHz on 3 % of the frequency."""
    edges = [_LOWEST_HZ]
    for _ in range(BANDS):
        edges.append(edges[-1] + max(_NARROWEST_HZ, _RELATIVE_WIDTH * edges[-1]))
    return np.array(edges)


def _strengths_db() -> NDArray[np.float64]:
    low, middle, high = _STRENGTHS
    centers = (band_edges()[1:] + band_edges()[:-1]) / 2
    return np.where(centers < _MIDDLE_HZ, low, np.where(centers < _HIGH_HZ, middle, high))


STRENGTHS_DB = _strengths_db()
"""How much a band becomes louder or quieter [BANDS]."""


def band_of_bins(bins: int, bin_hz: float) -> NDArray[np.int64]:
    """Return the band of each bin [bins] of a spectrum, -1 outside of all bands."""
    band = np.searchsorted(band_edges(), np.arange(bins) * bin_hz, side="right") - 1
    return np.where(band < BANDS, band, -1)
