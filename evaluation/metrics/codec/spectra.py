"""Spectral distances, as the Descript audio codec (DAC) defines and papers on codecs report them."""

from __future__ import annotations

from functools import cache

import numpy as np

from pipeline.audio.mel import mel_filters

MEL_SCALES = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))
"""(window, mel bands) at any rate. The hop is a quarter of the window."""
STFT_WINDOWS = (2048, 512)
LEAST = 1e-5
"""Magnitudes of mel bands and powers of bins below this count as this. Both distances therefore depend on the level."""


def mel_distance(a: np.ndarray, b: np.ndarray, rate: int) -> float:
    """Return the sum over seven scales of the mean absolute difference of log10 mel magnitudes; a, b: float32 [S] at `rate` Hz.

    It is `MelSpectrogramLoss` with the settings of DAC's training. DAC's evaluation script has other defaults.
    """
    total = 0.0
    for window, bands in MEL_SCALES:
        bank = _bank(bands, window, rate)
        logs = [np.log10(np.maximum(magnitudes(x, window) @ bank, LEAST)) for x in (a, b)]
        total += float(np.abs(logs[0] - logs[1]).mean(dtype=np.float64))
    return total


def stft_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the sum over two windows of the mean absolute differences of magnitudes and of log10 powers; a, b: float32 [S].

    It is `MultiScaleSTFTLoss` with its default settings.
    """
    total = 0.0
    for window in STFT_WINDOWS:
        one, other = magnitudes(a, window), magnitudes(b, window)
        logs = [np.log10(np.maximum(np.square(x), LEAST)) for x in (one, other)]
        total += float(np.abs(logs[0] - logs[1]).mean(dtype=np.float64) + np.abs(one - other).mean(dtype=np.float64))
    return total


def magnitudes(samples: np.ndarray, window: int) -> np.ndarray:
    """Return float32 [frames, window // 2 + 1] of float32 [S]: periodic Hann windows, a quarter apart, centered, reflected ends."""
    samples = np.asarray(samples, dtype=np.float32)
    side = window // 2
    # Only a clip that is longer than half a window has enough samples to reflect.
    padded = np.pad(samples, side, mode="reflect" if len(samples) > side else "constant")
    shape = np.hanning(window + 1)[:-1].astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[:: window // 4]
    return np.abs(np.fft.rfft(frames * shape, axis=1))


@cache
def _bank(bands: int, window: int, rate: int) -> np.ndarray:
    return np.ascontiguousarray(mel_filters(bands, window, rate).T)
