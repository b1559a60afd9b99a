"""Measures of a reconstruction beside its original: distortion of the waveform, pitch, and bandwidth."""

from __future__ import annotations

import numpy as np

from evaluation.metrics.codec.spectra import magnitudes
from pipeline.voice.prosody import track_pitch

BEST_DB = 100.0
"""SI-SDR of identical clips, whose distortion is 0."""
LEAST_FRAMES = 10
"""Frames (0.1 s) that are voiced in both clips, for a difference of pitch."""
ROLL_OFF = 0.95
QUIET_DB = 40.0
"""Frames that are this much below the loudest are not part of the roll-off: they show the noise of the recording."""
_WINDOW = 2048


def si_sdr(wanted: np.ndarray, made: np.ndarray) -> float | None:
    """Return the scale-invariant ratio of signal to distortion in dB, from -100 to 100; None if a clip is silent or empty.

    wanted, made: float32 [S], aligned. Means are removed first.
    """
    if not len(wanted):
        return None
    a, b = (x.astype(np.float64) - x.mean(dtype=np.float64) for x in (wanted, made))
    if not a.any() or not b.any():
        return None
    signal = (a @ b) / (a @ a) * a
    distortion = b - signal
    ratio = (signal @ signal + 1e-30) / (distortion @ distortion + 1e-30)
    return float(np.clip(10 * np.log10(ratio), -BEST_DB, BEST_DB))


def pitch_difference(wanted: np.ndarray, made: np.ndarray) -> tuple[float | None, float | None]:
    """Return (F0 RMSE in cents over frames that are voiced in both, share of frames that are voiced in only one).

    wanted, made: float32 [S] at 16 kHz, aligned. None: fewer than 0.1 s are voiced in both, or the clip has no frame.
    """
    one, other = track_pitch(wanted), track_pitch(made)
    frames = min(len(one), len(other))
    if not frames:
        return None, None
    one, other = one[:frames], other[:frames]
    both = (one > 0) & (other > 0)
    wrong = float(((one > 0) != (other > 0)).mean())
    if both.sum() < LEAST_FRAMES:
        return None, wrong
    cents = 1200 * np.log2(other[both] / one[both])
    return float(np.sqrt(np.mean(np.square(cents)))), wrong


def roll_off_ratio(wanted: np.ndarray, made: np.ndarray) -> float | None:
    """Return the mean 95 % roll-off of the reconstruction divided by that of the original; None if either is silent.

    The roll-off of a frame is the frequency below which 95 % of its magnitude lies. wanted, made: float32 [S], aligned. Frames are
    those where the original is at most 40 dB below its loudest frame.
    """
    one, other = magnitudes(wanted, _WINDOW), magnitudes(made, _WINDOW)
    level = np.square(one).sum(axis=1)
    loud = (level >= level.max() * 10 ** (-QUIET_DB / 10)) & (level > 0)
    if not loud.any() or not other[loud].any():
        return None
    original, kept = (_roll_off(x[loud]) for x in (one, other))
    return kept / original if original else None


def _roll_off(frames: np.ndarray) -> float:
    """Return the mean bin below which 95 % of the magnitude lies; frames: [N, bins]."""
    sums = frames.cumsum(axis=1, dtype=np.float64)
    return float((sums < ROLL_OFF * sums[:, -1:]).sum(axis=1).mean())
