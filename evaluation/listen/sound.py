"""Sound of a test: loudness, coding, anchors, and the clips of its checks."""

from __future__ import annotations

import io
import math
from itertools import permutations

import numpy as np

from evaluation.errors import EvaluationError

RATE = 48000
"""Samples per second of every clip, so that the rate tells nothing about the system."""
TONE_RATE = 8000
_OPUS_LEVEL = 0.7
"""libsndfile's compression level: about 80 kbit/s for one channel."""
_CLIP_DB = 30.0
"""How far the clipped clip of the gold pair exceeds full scale."""


def loudness(samples: np.ndarray, rate: int = RATE) -> float | None:
    """Return the loudness of float32 [S] as the pipeline measures it. Raises EvaluationError without pyloudnorm."""
    from pipeline.quality.levels import loudness_lufs

    try:
        return loudness_lufs(samples, rate)
    except ModuleNotFoundError:
        raise EvaluationError(
            "the loudness cannot be measured without pyloudnorm; pip install 'voxmill[pipeline]'"
        ) from None


def leveled(samples: np.ndarray, lufs: float, peak_dbfs: float) -> tuple[np.ndarray, float, float | None]:
    """Return the clip at a loudness, the gain in dB, and the loudness reached in LUFS.

    The gain is limited so that the peak stays at `peak_dbfs`. Silence keeps its level.
    """
    from pipeline.quality.levels import gain_db

    peak = float(np.abs(samples).max(initial=0.0))
    # Measured at full scale: a very quiet clip would lie below the gate of -70 LUFS and have no loudness.
    found = loudness(samples / peak) if peak else None
    if found is None:
        return samples, 0.0, None
    found += 20 * math.log10(peak)
    gain = gain_db(samples, found, lufs, peak_dbfs)
    return (samples * 10 ** (gain / 20)).astype(np.float32), gain, found + gain


def encoded(samples: np.ndarray, coding: str, rate: int = RATE, dither: int | None = None) -> bytes:
    """Return the file of a clip, [S] or [S, C]. `dither`: seed of noise in the last bit, which makes two copies differ."""
    import soundfile

    if dither is not None:
        noise = np.random.default_rng(dither).random((2, *samples.shape)) - 0.5
        samples = np.clip(samples + noise.sum(axis=0) / 32768, -1.0, 1.0)
    sink = io.BytesIO()
    if coding == "opus":
        soundfile.write(sink, samples, rate, format="OGG", subtype="OPUS", compression_level=_OPUS_LEVEL)
    else:
        soundfile.write(sink, samples, rate, format="FLAC", subtype="PCM_16")
    return sink.getvalue()


def low_passed(samples: np.ndarray, hertz: float, rate: int = RATE) -> np.ndarray:
    """Return an anchor of ITU-R BS.1534: flat up to `hertz`, 50 dB down 1 kHz above it."""
    beta, half = 5.65, 200
    taps = np.arange(-half, half + 1)
    cutoff = (hertz + 250) / rate
    kernel = 2 * cutoff * np.sinc(2 * cutoff * taps) * np.kaiser(2 * half + 1, beta)
    size = 1 << math.ceil(math.log2(len(samples) + len(kernel)))
    product = np.fft.rfft(samples, size) * np.fft.rfft(kernel / kernel.sum(), size)
    return np.fft.irfft(product, size)[half : half + len(samples)].astype(np.float32)


def hard_clipped(samples: np.ndarray) -> np.ndarray:
    """Return the clip, driven far above full scale and cut off there."""
    peak = max(float(np.abs(samples).max()), 1e-6)
    return np.clip(samples / peak * 10 ** (_CLIP_DB / 20), -1.0, 1.0).astype(np.float32)


def beeps(count: int) -> np.ndarray:
    """Return `count` beeps of 0.12 s at 880 Hz, 0.3 s apart, as float32 [S] at `RATE`."""
    beep = _tone(880.0, 0.12, RATE)
    gap = np.zeros(int(0.3 * RATE), dtype=np.float32)
    return np.concatenate([gap // 2, *(part for _ in range(count) for part in (beep, gap))])


ORDERS = tuple(permutations(("plain", "antiphase", "quiet")))
"""Orders of the three tones of a headphone trial."""


def three_tones(order: tuple[str, ...], seconds: float) -> np.ndarray:
    """Return three tones of 200 Hz in stereo, float32 [S, 2] at `TONE_RATE`: one plain, one 6 dB quieter, one in antiphase.

    By headphones, `quiet` is the quietest. By loudspeakers the antiphase one is, because its sides cancel in the air.
    """
    tone = 0.3 * _tone(200.0, seconds, TONE_RATE)
    gap = np.zeros((int(0.25 * TONE_RATE), 2), dtype=np.float32)
    sides = {"plain": (1.0, 1.0), "antiphase": (1.0, -1.0), "quiet": (0.5, 0.5)}
    return np.concatenate([part for kind in order for part in (np.outer(tone, sides[kind]).astype(np.float32), gap)])


def _tone(hertz: float, seconds: float, rate: int) -> np.ndarray:
    """Return a sine of float32 [S] with an amplitude of 0.5 and ramps of 10 ms."""
    count = int(seconds * rate)
    ramp = np.minimum(1.0, np.minimum(np.arange(count), np.arange(count)[::-1]) / (0.01 * rate))
    return (0.5 * ramp * np.sin(2 * np.pi * hertz * np.arange(count) / rate)).astype(np.float32)
