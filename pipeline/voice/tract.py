"""The vocal tract and the effort of a voice: the fourth formant, and how strong its high frequencies are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soxr

from pipeline.records import PCM_RATE

_RATE = 11_000
"""Rate of the linear prediction in Hz: its band holds the formants 1 to 4 of men and women, and little above them."""
_ORDER = 12
_FRAME = 280
"""25 ms at `_RATE`."""
_WIDEST_HZ = 500.0
"""A resonance with a larger bandwidth is not a formant: it models the slope of the spectrum."""
_LOWEST_HZ, _HIGHEST_HZ = 90.0, 5400.0
_LOWEST_FOURTH_HZ = 2800.0
_FEWEST = 10
"""Voiced frames (0.1 s) below which nothing is measured."""
_NARROW_DB = -50.0
"""A recording is narrow-band, e.g. a telephone's, if its level at 4.2-5.4 kHz is this much below that at 0.2-3.4 kHz."""


@dataclass(frozen=True)
class Tract:
    """What the spectrum of the voiced frames shows. formant_hz: median fourth formant, which depends on the length of the
    vocal tract and little on the vowel; None in narrow-band recordings. effort_db: level of 1-5 kHz relative to that below
    1 kHz, in dB; it rises with vocal effort and does not depend on the gain."""

    formant_hz: float | None
    effort_db: float


def measure_tract(samples: np.ndarray, pitch: np.ndarray) -> Tract | None:
    """Return the tract of float32 [S] at 16 kHz, given its `track_pitch`; None if fewer than ten frames are voiced."""
    voiced = np.flatnonzero(pitch > 0)
    if len(voiced) < _FEWEST:
        return None
    # Every second frame: the frames overlap, and the medians need no more.
    centers = voiced[::2] * (PCM_RATE // 100) + PCM_RATE // 50
    power, hz = _spectra(samples, centers)
    level = power.mean(axis=0)
    high, low = (float(level[(hz >= a) & (hz < b)].mean()) for a, b in ((4200, 5400), (200, 3400)))
    narrow = high <= low * 10 ** (_NARROW_DB / 10)
    bright = power[:, (hz >= 1000) & (hz < 5000)].sum(axis=1)
    dark = power[:, (hz >= 80) & (hz < 1000)].sum(axis=1)
    effort = float(np.median(10 * np.log10((bright + 1e-12) / (dark + 1e-12))))
    return Tract(None if narrow else _fourth_formant(samples, centers), effort)


def _spectra(samples: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the power spectra around the centers and their frequencies in Hz: float64 [N, 257], [257]."""
    frames = _frames(samples, centers, 512) * np.hanning(512)
    return np.abs(np.fft.rfft(frames, axis=1)) ** 2, np.fft.rfftfreq(512, 1 / PCM_RATE)


def _frames(samples: np.ndarray, centers: np.ndarray, size: int) -> np.ndarray:
    """Return the frames of `size` samples around the centers, moved inward at the ends: float64 [N, size]."""
    if len(samples) < size:
        samples = np.pad(samples, (0, size - len(samples)))
    starts = np.clip(centers - size // 2, 0, len(samples) - size)
    view = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), size)
    return np.asarray(view[starts])


def _fourth_formant(samples: np.ndarray, centers: np.ndarray) -> float | None:
    """Return the median fourth formant in Hz; None if too few frames show four formants."""
    low = soxr.resample(samples, PCM_RATE, _RATE)
    emphasized = np.append(low[:1], low[1:] - 0.97 * low[:-1])
    frames = _frames(emphasized, (centers * (_RATE / PCM_RATE)).astype(int), _FRAME) * np.hamming(_FRAME)
    frames = frames[np.square(frames).sum(axis=1) > 1e-9]
    if not len(frames):
        return None
    roots = _roots(_prediction(frames))
    hz = np.angle(roots) * _RATE / (2 * np.pi)
    bandwidth = -np.log(np.maximum(np.abs(roots), 1e-9)) * _RATE / np.pi
    formant = (hz > _LOWEST_HZ) & (hz < _HIGHEST_HZ) & (bandwidth < _WIDEST_HZ)
    fourth = np.sort(np.where(formant, hz, np.inf), axis=1)[:, 3]
    fourth = fourth[np.isfinite(fourth) & (fourth > _LOWEST_FOURTH_HZ)]
    return float(np.median(fourth)) if len(fourth) >= _FEWEST // 2 else None


def _prediction(frames: np.ndarray) -> np.ndarray:
    """Return the coefficients of linear prediction by autocorrelation: float64 [N, order] of frames [N, size]."""
    size = 1 << (2 * _FRAME - 1).bit_length()
    own = np.fft.irfft(np.abs(np.fft.rfft(frames, size, axis=1)) ** 2, axis=1)[:, : _ORDER + 1]
    own[:, 0] *= 1.0001  # White noise 40 dB below the signal: the matrix stays regular.
    lags = np.abs(np.arange(_ORDER)[:, None] - np.arange(_ORDER)[None])
    solved = np.linalg.solve(own[:, lags], own[:, 1:, None])
    return np.asarray(-solved[..., 0])


def _roots(coefficients: np.ndarray) -> np.ndarray:
    """Return the roots of the prediction polynomials: complex [N, order]."""
    count, order = coefficients.shape
    companion = np.zeros((count, order, order))
    companion[:, 0] = -coefficients
    companion[:, np.arange(1, order), np.arange(order - 1)] = 1.0
    return np.asarray(np.linalg.eigvals(companion))
