"""Reverberation: the decay of speech where it stops, measured without knowing the room or the words."""

from __future__ import annotations

import numpy as np

from pipeline.records import PCM_RATE

_WIDTH, _HOP = 512, 128
_EDGES_HZ = (300.0, 500.0, 800.0, 1200.0, 1800.0, 2600.0, 3600.0, 5000.0)
_SMOOTH = 15
"""Frames (120 ms) over which levels are averaged, because single reflections rise above the decay."""
_FLOOR_PERCENTILE, _FLOOR_DB = 2, 3.0
_LEAST_FRAMES, _LEAST_DB = 8, 8.0
"""Minimum length (64 ms) and depth (8 dB) of a fall: less is a movement within the voice."""
_LEAST_FALLS = 5


def reverb_s(samples: np.ndarray) -> float | None:
    """Return the seconds in which falling levels would fall by 60 dB, of float32 [S] at 16 kHz; None with fewer than five
    falls.

    It is the median over all uninterrupted falls, of at least 8 dB and above the noise floor, in seven bands from 300 Hz to
    5 kHz. The slope of each is fitted to its later four fifths. The endings of a voice and the smoothing keep it above 0.25
    s. Convolved with exponential decays of 0.15, 0.3, 0.5, 0.8, 1.2 and 1.8 s, dry clips measure 0.32, 0.43, 0.59, 0.83,
    1.12 and 1.41 s in the median. 49 of 50 clips rise with every step. Of 742 clips of 60 corpora 99 % measure less than
    0.49 s.
    """
    if len(samples) < _WIDTH + (_SMOOTH + _LEAST_FRAMES) * _HOP:
        return None
    levels = _levels(samples)
    floor = np.percentile(levels, _FLOOR_PERCENTILE, axis=0) + _FLOOR_DB
    falling = (np.diff(levels, axis=0) < 0) & (levels[1:] > floor)
    decays = []
    for band in range(levels.shape[1]):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], falling[:, band].astype(np.int8), [0]])))
        for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            fall = levels[start : end + 1, band]
            if len(fall) < _LEAST_FRAMES or fall[0] - fall[-1] < _LEAST_DB:
                continue
            # The first fifth is the end of the sound itself, rounded by the smoothing.
            fall = fall[len(fall) // 5 :]
            times = np.arange(len(fall)) - (len(fall) - 1) / 2
            slope = float(times @ fall / (times @ times)) * PCM_RATE / _HOP
            if slope < 0:
                decays.append(-60.0 / slope)
    return float(np.median(decays)) if len(decays) >= _LEAST_FALLS else None


def _levels(samples: np.ndarray) -> np.ndarray:
    """Return the smoothed levels in dB, float64 [frames, bands]."""
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float32), _WIDTH)[::_HOP]
    window = np.hanning(_WIDTH).astype(np.float32)
    bins = np.rint(np.array(_EDGES_HZ) * _WIDTH / PCM_RATE).astype(int)
    # Long clips are processed in parts, so that their spectra are never all in memory.
    power = [
        np.add.reduceat(np.square(np.abs(np.fft.rfft(part * window, axis=1)))[:, : bins[-1]], bins[:-1], axis=1)
        for part in np.array_split(frames, max(1, len(frames) // 2048))
    ]
    levels = 10 * np.log10(np.concatenate(power).astype(np.float64) + 1e-10)
    weights = np.hanning(_SMOOTH + 2)[1:-1]
    return np.apply_along_axis(np.convolve, 0, levels, weights / weights.sum(), "valid")
