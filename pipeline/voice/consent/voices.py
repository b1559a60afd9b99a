"""Whether two recordings may be of one person: the cosine of their voiceprints, and what it has to be.

The mean voiceprint of a clip that is spliced of two voices is near to both. Each stretch of it is compared as well.

The voiceprints exist in memory only. They are biometric data, and no record holds one.
"""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catalogs.weights.registry import resolve
from catalogs.weights.verify import WeightsMissing
from pipeline.voice.encoders import EncoderName, SpeakerEncoder

STRONG: tuple[EncoderName, ...] = ("ecapa",)
"""Encoders whose comparison may be called a verification."""


@dataclass(frozen=True)
class Limit:
    """The least cosine of an encoder: `base` minus `slope` times the sum of 1/seconds of both recordings."""

    base: float
    slope: float
    least_s: float  #: shortest speech, in seconds, that is compared
    stretch: int  #: windows of the encoder in a stretch, about 3 s of speech
    stretch_cosine: float  #: least cosine of each stretch of a reference with the whole statement

    def least_cosine(self, statement_s: float, reference_s: float) -> float:
        """Return the least cosine for two lengths of speech in seconds; beyond 15 s more speech changes little."""
        inverse = sum(1 / min(max(seconds, self.least_s), 15.0) for seconds in (statement_s, reference_s))
        return self.base - self.slope * inverse


@functools.cache
def limit(encoder: EncoderName) -> Limit:
    """Return the limit of an encoder, from limits.toml."""
    table = tomllib.loads((Path(__file__).parent / "limits.toml").read_text(encoding="utf-8"))
    return Limit(**table[encoder])


def best_encoder() -> EncoderName:
    """Return the strongest encoder whose weights are on this machine; GE2E if there is none."""
    for name in STRONG:
        try:
            resolve(name)
        except WeightsMissing:
            continue
        return name
    return "ge2e"


def window_prints(encoder: SpeakerEncoder, speech: np.ndarray) -> np.ndarray:
    """Return the voiceprints of the windows of speech, float32 [S] at 16 kHz: float32 [N, width], N >= 1."""
    return encoder.partials([speech])[0]


def voiceprint(windows: np.ndarray) -> np.ndarray:
    """Return the mean of the voiceprints of windows, float32 [N, width]: float32 [width] of unit length."""
    mean = windows.mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9), dtype=np.float32)


def least_of_stretches(print_: np.ndarray, windows: np.ndarray, stretch: int) -> float:
    """Return the least cosine of a voiceprint with any run of `stretch` windows, float32 [N, width]; with all if N is less."""
    starts = range(max(1, len(windows) - stretch + 1))
    return min(cosine(print_, voiceprint(windows[start : start + stretch])) for start in starts)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Return the cosine of two voiceprints."""
    return float(one @ other)
