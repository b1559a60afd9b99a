"""Small recordings for tests of the audio stages, and sessions that hold them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import soundfile

from pipeline.records import Recording, Session, Source


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


def session_of(*paths: Path, spool: Path | None = None) -> Session:
    """A session of these files in this order."""
    recordings = []
    for path in paths:
        identity = hashlib.sha256(str(path).encode()).hexdigest()
        size = path.stat().st_size
        recordings.append(Recording(Source(identity[:16], str(path), path.name, "s", size, identity)))
    return Session("s", "fp", str(spool or paths[0].parent / "spool"), recordings)
