"""Classify a voice as a man's or a woman's, by its pitch."""

from __future__ import annotations

import numpy as np

from pipeline.records import Segment

# Logistic function of the octaves of a voice's median pitch above 165 Hz, about the border between adult men and women.
_BORDER_HZ, _PER_OCTAVE = 165.0, 9.0


def gender_from_pitch(voice: list[Segment]) -> tuple[str | None, float | None]:
    """Return (male | female, probability) of one voice, from the duration-weighted median of its segments' pitch; (None,
    None) without a pitch."""
    pitched = [(s.pitch_hz, s.duration_s) for s in voice if s.pitch_hz]
    if not pitched:
        return None, None
    pitch, weight = (np.array(values) for values in zip(*pitched, strict=True))
    order = np.argsort(pitch)
    middle = np.searchsorted(np.cumsum(weight[order]), weight.sum() / 2)
    octaves = float(np.log2(pitch[order][min(middle, len(order) - 1)] / _BORDER_HZ))
    female = float(1 / (1 + np.exp(-_PER_OCTAVE * octaves)))
    return ("female", female) if female >= 0.5 else ("male", 1 - female)
