"""Decide whether a voice is a man's or a woman's, by what was measured of all its segments."""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from annotators.experts.gender import VoiceClip, female_logit, pitch_and_formant
from pipeline.records import Segment

FITTED = Path(__file__).parent / "gender_ge2e.toml"
_SURE = math.log(9)
"""Minimum log odds of a verdict: a probability of 0.9. Below, the gender stays empty."""


@dataclass(frozen=True)
class Witnesses:
    """Logistic regression on a voice's pitch, its fourth formant (both in octaves) and its mean voiceprint [W].

    `benchmarks/quality/gender.py --write` fits it on voices of permissively licensed corpora. Each corpus that it reports is
    left out of the fit.
    """

    pitch: float
    formant: float
    voiceprint: np.ndarray
    bias: float

    def logit(self, pitch: float, formant: float, voiceprint: np.ndarray) -> float:
        """Return the log odds that the voice is a woman's."""
        return float(self.pitch * pitch + self.formant * formant + voiceprint @ self.voiceprint + self.bias)


@functools.cache
def witnesses() -> Witnesses:
    """Return the fitted regression for voiceprints of GE2E."""
    table = tomllib.loads(FITTED.read_text(encoding="utf-8"))
    return Witnesses(table["pitch"], table["formant"], np.array(table["voiceprint"], dtype=np.float64), table["bias"])


def gender_of(voice: Sequence[Segment]) -> tuple[str | None, float | None]:
    """Return (male | female, probability) of one voice; (None, None) if its measures leave it open or there are none.

    A voice that is not sure does not ask those near it, e.g. a man's shouts his calm speech: in a session of several people the
    near voices are often other people's (benchmarks/quality/gender.py, sessions).
    """
    return _verdict(voice_logit(voice))


def voice_logit(segments: Sequence[Segment]) -> float | None:
    """Return the log odds that a voice is a woman's; None without pitch or if it always shouts.

    Voiceprints count in wide-band audio only (a fourth formant was measured): a telephone's makes women men. Without one, and
    for an encoder other than GE2E, pitch and formant decide alone.
    """
    pitched = [s for s in segments if s.pitch_low_hz]
    alone = female_logit([_clip(s) for s in pitched])
    heard = [s for s in pitched if s.formant_hz and s.embedding is not None]
    fitted = witnesses()
    if alone is None or not heard or len(np.asarray(heard[0].embedding)) != len(fitted.voiceprint):
        return alone
    pitch, formant = pitch_and_formant([_clip(s) for s in heard])
    return fitted.logit(pitch, formant, mean_voiceprint(heard))


def mean_voiceprint(segments: Sequence[Segment]) -> np.ndarray:
    """Return the mean voiceprint, weighted by voiced time, with unit length: float64 [W]."""
    prints = np.stack([np.asarray(s.embedding, dtype=np.float64) for s in segments])
    mean = np.average(prints, axis=0, weights=[_clip(s).voiced_s for s in segments])
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9))


def _clip(segment: Segment) -> VoiceClip:
    return VoiceClip(
        segment.pitch_low_hz or 0.0, segment.formant_hz, segment.duration_s * (segment.voiced_share or 1.0)
    )


def _verdict(logit: float | None) -> tuple[str | None, float | None]:
    if logit is None or abs(logit) < _SURE:
        return None, None
    return ("female" if logit > 0 else "male"), 1 / (1 + math.exp(-min(abs(logit), 30.0)))
