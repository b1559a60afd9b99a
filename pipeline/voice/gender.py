"""Decide whether a voice is a man's or a woman's, by what was measured of all its segments."""

from __future__ import annotations

from collections.abc import Sequence

from annotators.experts.gender import VoiceClip, female_p
from pipeline.records import Segment

_SURE = 0.9
"""Minimum probability of a verdict. Between, the gender stays empty."""


def gender_of(voice: Sequence[Segment], kin: Sequence[Segment] = ()) -> tuple[str | None, float | None]:
    """Return (male | female, probability) of one voice; (None, None) if its measures leave it open or there are none.

    kin: the segments of all voices that may be this one in other moods, itself included. A man's shouts are a cluster of their
    own, with a woman's pitch: the kin decide. If they leave it open, the voice decides by itself unless they lean to the other
    side. If it is sure of the opposite, e.g. because two people are among the kin, the gender stays empty.
    """
    own = _female_p(voice)
    wide = _female_p(kin) if kin else own
    if own is None or wide is None:
        # A voice that always shouts has no verdict, but its kin may have one.
        return _verdict(wide)
    if _sure(wide):
        return _verdict(None if _sure(own) and (own >= 0.5) != (wide >= 0.5) else wide)
    return _verdict(own if (own >= 0.5) == (wide >= 0.5) else None)


def _female_p(segments: Sequence[Segment]) -> float | None:
    return female_p(
        [
            VoiceClip(s.pitch_low_hz, s.formant_hz, s.duration_s * (s.voiced_share or 1.0))
            for s in segments
            if s.pitch_low_hz
        ]
    )


def _sure(female: float) -> bool:
    return max(female, 1 - female) >= _SURE


def _verdict(female: float | None) -> tuple[str | None, float | None]:
    if female is None or not _sure(female):
        return None, None
    return ("female", female) if female >= 0.5 else ("male", 1 - female)
