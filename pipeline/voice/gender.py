"""Decide whether a voice is a man's or a woman's, by what was measured of all its segments."""

from __future__ import annotations

from collections.abc import Sequence

from annotators.experts.gender import VoiceClip, female_p
from pipeline.records import Segment

_SURE = 0.9
"""Minimum probability of a verdict. Between, the gender stays empty."""


def gender_of(voice: Sequence[Segment]) -> tuple[str | None, float | None]:
    """Return (male | female, probability) of one voice; (None, None) if its measures leave it open or there are none."""
    clips = [
        VoiceClip(s.pitch_low_hz, s.formant_hz, s.duration_s * (s.voiced_share or 1.0)) for s in voice if s.pitch_low_hz
    ]
    female = female_p(clips)
    if female is None or max(female, 1 - female) < _SURE:
        return None, None
    return ("female", female) if female >= 0.5 else ("male", 1 - female)
