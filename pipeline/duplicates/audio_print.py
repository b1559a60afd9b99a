"""A fingerprint of audio that survives codecs, telephones, gains and offsets: signs of energy differences.

Based on an idea of Haitsma and Kalker (2002): each bit states whether the slope between two neighboring bands rose or fell
from one frame to the next. Frames are long here (0.26 s, an eighth apart), so that two copies whose frames do not start at
the same sample still agree. Bands stay within the range of a telephone.
"""

from __future__ import annotations

import hashlib

import numpy as np

from pipeline.records import PCM_RATE

WIDTH = 4096
HOP = 512
FRAME_S = HOP / PCM_RATE
"""Seconds from one word of a fingerprint to the next: 32 ms."""
BITS = 16
_LOW_HZ, _HIGH_HZ = 300.0, 3300.0
_LAG = 3
"""Frames between the two whose slopes are compared: 96 ms. Neighboring frames share seven eighths of their samples, and the
sign of such a small difference is easily lost."""
_FLOOR_DB = 40.0
"""Frames this far below the loudest hold noise, which codecs change: they get no word."""
SILENT = 0


def sha256_of(pcm: np.ndarray) -> str:
    """Return the hash of decoded audio, int16 [S] at 16 kHz: it is the same for any container and any lossless codec."""
    return hashlib.sha256(np.ascontiguousarray(pcm, dtype="<i2").tobytes()).hexdigest()


def audio_print(samples: np.ndarray) -> np.ndarray:
    """Return uint16 [frames] of float32 [S] at 16 kHz; SILENT (0) for frames without sound. Frame i starts at i * 32 ms.

    The words do not depend on the gain. A clip of less than 0.36 s has no words.
    """
    count = (len(samples) - WIDTH) // HOP + 1
    if count <= _LAG:
        return np.zeros(0, dtype=np.uint16)
    energy = np.concatenate([_band_energy(samples, first, min(first + 512, count)) for first in range(0, count, 512)])
    total = energy.sum(axis=1)
    heard = total > total.max() * 10 ** (-_FLOOR_DB / 10)
    level = np.log(energy + 1e-12)
    slope = level[:, 1:] - level[:, :-1]
    rising = slope[_LAG:] > slope[:-_LAG]
    words = (rising.astype(np.uint32) << np.arange(BITS, dtype=np.uint32)).sum(axis=1).astype(np.uint16)
    return np.where(heard[_LAG:] & heard[:-_LAG], np.maximum(words, 1), SILENT).astype(np.uint16)


def _band_energy(samples: np.ndarray, first: int, last: int) -> np.ndarray:
    """Return float64 [frames, bands] of the frames from `first` to before `last`."""
    part = samples[first * HOP : (last - 1) * HOP + WIDTH].astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(part, WIDTH)[::HOP]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(WIDTH).astype(np.float32), axis=1)))
    edges = np.rint(np.geomspace(_LOW_HZ, _HIGH_HZ, BITS + 2) * WIDTH / PCM_RATE).astype(int)
    return np.asarray(np.add.reduceat(power[:, : edges[-1]], edges[:-1], axis=1), dtype=np.float64)
