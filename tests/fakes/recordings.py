"""Small recordings for tests of the audio stages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile


def noise(seconds: float, rate: int, level: float = 0.1, seed: int = 0) -> np.ndarray:
    """float32 [S] of white noise."""
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)


def tone(hertz: float, seconds: float, rate: int, level: float = 0.5) -> np.ndarray:
    """float32 [S] of a sine."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int, subtype: str = "PCM_16") -> Path:
    """Write a file that libsndfile can write, in the format of its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype=subtype)
    return path
