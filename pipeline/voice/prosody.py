"""Pitch and its movement: what the prosody of a clip shows about its speaker and mood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.quality.levels import frame_power
from pipeline.records import PCM_RATE

_WINDOW = int(0.040 * PCM_RATE)
_HOP = int(0.010 * PCM_RATE)
_LOWEST_HZ, _HIGHEST_HZ = 60.0, 500.0
_VOICED = 0.5
_OCTAVE_COST = 0.02


@dataclass(frozen=True)
class Prosody:
    """The prosody of one clip. pitch_hz: median of voiced frames; pitch_range_st: 10th to 90th percentile in semitones;
    pitch_speed: mean change in semitones per 10 ms of voice; level_range_db: 10th to 90th percentile of voiced levels;
    pitch_low_hz: lower quartile of voiced frames; voiced_share: share of the frames that are voiced."""

    pitch_hz: float
    pitch_range_st: float
    pitch_speed: float
    level_range_db: float
    pitch_low_hz: float
    voiced_share: float


def measure_prosody(samples: np.ndarray, pitch: np.ndarray | None = None) -> Prosody | None:
    """Return the prosody of float32 [S] at 16 kHz; None if fewer than ten frames (0.1 s) are voiced. pitch: its
    `track_pitch`, if it is already known."""
    if pitch is None:
        pitch = track_pitch(samples)
    voiced = pitch > 0
    if voiced.sum() < 10:
        return None
    semitones = 12 * np.log2(pitch[voiced])
    power = np.repeat(frame_power(samples), 2)
    power = np.pad(power, (0, max(0, len(pitch) - len(power))), mode="edge")[: len(pitch)]
    levels = 10 * np.log10(np.maximum(power[voiced], 1e-10))
    steps = np.abs(np.diff(12 * np.log2(np.where(voiced, pitch, 1.0))))[voiced[1:] & voiced[:-1]]
    low, middle, high = np.percentile(semitones, [10, 50, 90])
    return Prosody(
        pitch_hz=float(2 ** (middle / 12)),
        pitch_range_st=float(high - low),
        pitch_speed=float(steps[steps < 6].mean()) if (steps < 6).any() else 0.0,
        level_range_db=float(np.percentile(levels, 90) - np.percentile(levels, 10)),
        pitch_low_hz=float(2 ** (np.percentile(semitones, 25) / 12)),
        voiced_share=float(voiced.mean()),
    )


def track_pitch(samples: np.ndarray) -> np.ndarray:
    """Return the fundamental frequency in Hz every 10 ms, 0 if unvoiced: float64 [frames], of float32 [S] at 16 kHz.

    It is the autocorrelation of windowed frames divided by that of the window, whose peak near 1 is a whole period. A small
    cost of long periods prefers the octave above if both fit, and a median over five frames repairs single octave jumps.
    """
    if len(samples) < _WINDOW:
        return np.zeros(0)
    window = np.hanning(_WINDOW)
    size = 1 << (2 * _WINDOW - 1).bit_length()
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), _WINDOW)[::_HOP]
    frames = (frames - frames.mean(axis=1, keepdims=True)) * window
    shortest, longest = int(PCM_RATE / _HIGHEST_HZ), int(PCM_RATE / _LOWEST_HZ)
    spectrum = np.abs(np.fft.rfft(frames, size, axis=1)) ** 2
    correlation = np.fft.irfft(spectrum, axis=1)[:, : longest + 2]
    own = np.fft.irfft(np.abs(np.fft.rfft(window, size)) ** 2)[: longest + 2]
    energy = correlation[:, :1]
    strength = correlation / np.maximum(energy, 1e-12) / (own / own[0])
    lags = np.arange(longest + 2)
    scored = strength - _OCTAVE_COST * np.log2(np.maximum(lags, 1) / shortest)
    peak = (strength[:, 1:-1] > strength[:, :-2]) & (strength[:, 1:-1] >= strength[:, 2:])
    scored[:, 1:-1] = np.where(peak, scored[:, 1:-1], -np.inf)
    best = scored[:, shortest : longest + 1].argmax(axis=1) + shortest
    rows = np.arange(len(frames))
    before, here, after = strength[rows, best - 1], strength[rows, best], strength[rows, best + 1]
    # A parabola through the peak gives the period between samples.
    bend = before - 2 * here + after
    shift = np.where(np.abs(bend) > 1e-9, 0.5 * (before - after) / np.where(np.abs(bend) > 1e-9, bend, 1.0), 0.0)
    pitch = PCM_RATE / (best + np.clip(shift, -0.5, 0.5))
    loud = energy[:, 0] > 1e-4 * np.percentile(energy[:, 0], 95)
    voiced = (here > _VOICED) & loud & np.isfinite(scored[rows, best])
    return _median_of_voiced(np.where(voiced, pitch, 0.0))


def _median_of_voiced(pitch: np.ndarray) -> np.ndarray:
    """Return the pitch with each voiced value replaced by the median of the voiced ones within two frames."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(pitch, 2), 5)
    masked = np.where(around > 0, around, np.nan)
    smooth = pitch.copy()
    rows = pitch > 0
    smooth[rows] = np.nanmedian(masked[rows], axis=1)
    return smooth
