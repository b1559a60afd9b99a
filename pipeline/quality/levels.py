"""Levels of a clip: loudness, energy, clipping, signal-to-noise ratio."""

from __future__ import annotations

import numpy as np

from pipeline.records import PCM_RATE

_FRAME = PCM_RATE // 50
_FLOOR = 1e-10
# Frames below -90 dB are digital silence (a gate, a drop-out, an edit): they hold no recorded noise.
_RECORDED = 1e-9
# Values of a clipped top may differ by rounding: one and a half 16-bit steps.
_STEP = 1.5 / 32768


def frame_power(samples: np.ndarray) -> np.ndarray:
    """Return the mean power of each 20 ms of float32 [S] at 16 kHz: float64 [S // 320] (at least one)."""
    count = max(1, len(samples) // _FRAME)
    padded = np.pad(samples, (0, max(0, count * _FRAME - len(samples))))[: count * _FRAME]
    return np.square(padded.astype(np.float64)).reshape(count, _FRAME).mean(axis=1)


def decibel(power: float) -> float:
    """Return 10 log10 of a power, with a floor at -100 dB."""
    return float(10 * np.log10(max(power, _FLOOR)))


def energy_db(speech: np.ndarray) -> float:
    """Return the mean power of speech frames (from `frame_power`), in dB relative to full scale."""
    return decibel(float(speech.mean())) if len(speech) else -100.0


def snr_db(speech: np.ndarray, around: np.ndarray) -> float | None:
    """Return the power of speech over the power of noise in dB, at most 80.

    speech: powers of the frames that the VAD marks as speech; around: powers of all frames of the segment and of the
    non-speech beside it. The noise is the mean of the quietest tenth of the frames that are not digital silence: pauses if
    there are any, otherwise the gaps between sounds. None if there is nothing to measure.
    """
    around = around[around > _RECORDED]
    if not len(speech) or len(around) < 10:
        return None
    noise = np.sort(around)[: max(1, len(around) // 10)].mean()
    return min(80.0, decibel(float(speech.mean())) - decibel(float(noise)))


def clipping(samples: np.ndarray) -> float:
    """Return the share of samples cut off flat: in runs of three or more at the highest or the lowest value of the clip.

    samples: float32 [S] at the native rate (resampling rounds the flat tops). 0 for clean recordings, above 0.001 for
    audible clipping. The result is the same if the clip was turned down afterwards; peaks below 0.1 are not examined.
    """
    if len(samples) < 3:
        return 0.0
    inside = np.zeros(len(samples), dtype=bool)
    for side in (samples, -samples):
        peak = float(side.max())
        if peak < 0.1:
            continue
        flat = side >= peak - _STEP
        runs = flat[:-2] & flat[1:-1] & flat[2:]
        for shift in range(3):
            inside[shift : len(samples) - 2 + shift] |= runs
    return float(inside.mean())


def loudness_lufs(samples: np.ndarray, rate: int = PCM_RATE) -> float | None:
    """Return the integrated loudness of float32 [S] by ITU-R BS.1770 in LUFS; clips under 0.4 s are repeated to fill one block.
    None for silence."""
    import pyloudnorm

    if not np.any(samples):
        return None
    block = int(0.4 * rate)
    if len(samples) <= block:
        samples = np.resize(samples, block + 1)
    value = pyloudnorm.Meter(rate).integrated_loudness(samples.astype(np.float64))
    return float(value) if np.isfinite(value) else None


def gain_db(samples: np.ndarray, lufs: float, target_lufs: float, peak_dbfs: float) -> float:
    """Return the gain in dB that brings a clip, float32 [S], from `lufs` to `target_lufs`, limited so that its peak stays
    below `peak_dbfs`."""
    peak = float(np.abs(samples).max())
    return min(target_lufs - lufs, peak_dbfs - 20 * float(np.log10(max(peak, 1e-10))))
