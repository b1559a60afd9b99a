"""Whether two recordings may be of one person: the cosine of their voiceprints, and what it has to be.

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


def voiceprint(encoder: SpeakerEncoder, speech: np.ndarray) -> np.ndarray:
    """Return the mean voiceprint of speech, float32 [S] at 16 kHz: float32 [width] of unit length."""
    mean = encoder.partials([speech])[0].mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9), dtype=np.float32)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Return the cosine of two voiceprints."""
    return float(one @ other)
