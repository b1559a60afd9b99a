"""What pages draw of a clip: peaks of the waveform and a spectrogram, computed with numpy."""

from __future__ import annotations

import numpy as np

_WINDOW_S = 0.032
_TOP_HZ = 12_000.0
_RANGE_DB = 75.0


def peaks(samples: np.ndarray, most: int = 1200) -> list[float]:
    """Return the peak level of each of at most `most` equal parts of `[S] float32`, 0 to 1."""
    parts = min(most, len(samples)) or 1
    edges = np.linspace(0, len(samples), parts, endpoint=False).astype(np.int64)
    found = np.maximum.reduceat(np.abs(samples), edges) if len(samples) else np.zeros(1)
    return [round(float(value), 3) for value in found]


def spectrogram(samples: np.ndarray, rate: int, rows: int = 128, most: int = 1000) -> tuple[np.ndarray, float]:
    """Return (levels, highest frequency in Hz) of a clip. samples: `[S] float32`, rate in Hz.

    levels: `[rows, at most `most`] uint8`, the lowest frequency first, equally spaced on the mel scale; 255 is the loudest level of
    the clip, 0 is 75 dB below it.
    """
    size = max(int(rate * _WINDOW_S) // 2 * 2, 32)
    padded = np.pad(samples.astype(np.float32), (size // 2, size // 2))
    columns = int(min(most, max(len(samples) // (size // 4), 1)))
    starts = np.linspace(0, len(padded) - size, columns).astype(np.int64)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[starts]
    power = np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32), axis=1)) ** 2
    top = min(_TOP_HZ, rate / 2)
    bins = _mel_bins(top, rate, size, rows)
    levels = 10 * np.log10(power[:, bins].T + 1e-12)
    levels = (levels - levels.max() + _RANGE_DB) / _RANGE_DB
    return (levels.clip(0, 1) * 255).astype(np.uint8), top


def _mel_bins(top: float, rate: int, size: int, rows: int) -> np.ndarray:
    """Return the bin of the FFT at each row, `[rows] int64`."""
    mels = np.linspace(0, 2595 * np.log10(1 + top / 700), rows)
    frequencies = 700 * (10 ** (mels / 2595) - 1)
    return np.minimum(np.round(frequencies * size / rate), size // 2).astype(np.int64)
