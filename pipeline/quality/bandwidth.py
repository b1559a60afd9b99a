"""True bandwidth: how high the recording really goes, whatever its sample rate says."""

from __future__ import annotations

import numpy as np

_WIDTH = 1024
_BELOW_PEAK_DB = 60.0


def bandwidth_hz(samples: np.ndarray, rate: int) -> float:
    """The highest frequency whose long-term level is within 60 dB of the strongest one, in Hz; 0 for digital silence.

    samples: float32 [S]. The level of a bin is its mean power over the loud half of the clip's frames, where a band that
    an encoder cut off stays empty; quiet frames would show the noise floor of the converter instead.
    """
    if len(samples) < _WIDTH:
        samples = np.pad(samples, (0, _WIDTH - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(samples, _WIDTH)[:: _WIDTH // 2]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(_WIDTH), axis=1)))
    loudness = power.sum(axis=1)
    if not loudness.max() > 0:
        return 0.0
    level = power[loudness >= np.median(loudness)].mean(axis=0)
    above = np.nonzero(level >= level.max() * 10 ** (-_BELOW_PEAK_DB / 10))[0]
    return float((above[-1] + 1) * rate / _WIDTH) if above[-1] + 1 <= _WIDTH // 2 else rate / 2
