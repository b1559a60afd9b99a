"""Speech for the tests of the watermark: real if the corpora are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

Samples = NDArray[np.float32]


def speech(
    corpora: Path, name: str = "read/jfk.flac", rate: int = 16_000, start: float = 0, seconds: float = 5
) -> Samples:
    """Return one channel [n] of real speech at `rate` Hz."""
    samples, own = soundfile.read(corpora / name, dtype="float32", always_2d=True)
    part = samples[round(start * own) : round((start + seconds) * own), 0]
    return np.asarray(soxr.resample(part, own, rate), np.float32)


def babble(seconds: float, rate: int, seed: int = 0) -> Samples:
    """Return noise [n] whose loudness and color change as those of speech do, for tests that need no real speech."""
    random = np.random.default_rng(seed)
    count, step = round(seconds * rate), rate // 8
    knots = np.arange(0, count + step, step)
    steps = np.interp(np.arange(count), knots, random.uniform(0, 1, len(knots)))
    noise = random.normal(size=count + 4)
    noise, smooth = noise[4:], np.convolve(noise, np.ones(5) / 5, "valid")[:count]
    return (0.1 * steps * (steps * noise + (1 - steps) * smooth)).astype(np.float32)
