"""Gender of a voice by its pitch and the length of its vocal tract.

Pitch alone fails on low women and on men who act: a man who shouts has a woman's pitch, but not a woman's throat. The fourth
formant depends on the length of the vocal tract and hardly on the vowel. The slopes and borders were fitted on 35 voices of
permissively licensed corpora and rounded by hand; the limits were chosen while looking at all labeled voices. Figures, with fits
that leave the judged corpus out: benchmarks/quality/gender.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from annotators.experts.base import Expert, Shares
from annotators.schema import Clip

LOWEST_HZ, HIGHEST_HZ = 120.0, 210.0
"""Pitch outside adds no evidence: above, men act as often as women speak."""
_PER_PITCH_OCTAVE, _PER_FORMANT_OCTAVE = 9.0, 27.0
_BORDER_FORMANT_HZ = 3500.0
"""Fourth formant of a voice of `HIGHEST_HZ` that is as likely a man's as a woman's."""
_MOST_FORMANT_OCTAVES = 0.3
"""A fourth formant farther from the border adds no evidence: noise shifts it more than a throat does."""
_BORDER_PITCH_HZ, _PER_OCTAVE_ALONE = 165.0, 7.0
"""The same for a voice whose formants cannot be measured. A fit on pitch alone has 8.6 per octave in clean audio and 6.7 in
noise of 15 dB; with 8 or more, 2 of 56 verdicts in telephone audio are wrong."""
_SHOUTED_HZ = 250.0
"""A voice that never rests below is a child's or shouts; harmonics so far apart hide the formants. It gets no verdict."""
CALMER = 0.75
"""Share of the voiced time that counts, from the lowest pitch on: excitement raises pitch and formants alike."""


@dataclass(frozen=True)
class VoiceClip:
    """Measures of one clip of a voice: lower quartile of the pitch in Hz, fourth formant in Hz or None, voiced seconds."""

    pitch_low_hz: float
    formant_hz: float | None
    voiced_s: float


def female_p(clips: Sequence[VoiceClip]) -> float | None:
    """Return the probability that a voice is a woman's, from all its clips; None without clips or if it always shouts."""
    logit = female_logit(clips)
    return None if logit is None else 1 / (1 + math.exp(-logit))


def female_logit(clips: Sequence[VoiceClip]) -> float | None:
    """Return the log odds that a voice is a woman's. None without clips or if it always shouts."""
    clips = [clip for clip in clips if clip.voiced_s > 0 and clip.pitch_low_hz > 0]
    if not clips or _lower_quartile(clips) > _SHOUTED_HZ:
        return None
    whole = [clip for clip in clips if clip.formant_hz]
    if not whole:
        clips = calmer(clips)
        return _PER_OCTAVE_ALONE * _mean([math.log2(clip.pitch_low_hz / _BORDER_PITCH_HZ) for clip in clips], clips)
    pitch, formant = pitch_and_formant(whole)
    return _PER_PITCH_OCTAVE * pitch + _PER_FORMANT_OCTAVE * formant


def pitch_and_formant(clips: Sequence[VoiceClip]) -> tuple[float, float]:
    """Return the pitch and the fourth formant of a voice in octaves, relative to the border between the genders.

    clips: those in which both were measured; the calmer three quarters count.
    """
    clips = calmer(clips)
    pitch = _mean([math.log2(min(max(clip.pitch_low_hz, LOWEST_HZ), HIGHEST_HZ) / HIGHEST_HZ) for clip in clips], clips)
    formants = [math.log2((clip.formant_hz or 1.0) / _BORDER_FORMANT_HZ) for clip in clips]
    most = _MOST_FORMANT_OCTAVES
    return pitch, _mean([max(-most, min(most, formant)) for formant in formants], clips)


def _mean(values: Sequence[float], clips: Sequence[VoiceClip]) -> float:
    total = sum(clip.voiced_s for clip in clips)
    return sum(value * clip.voiced_s for value, clip in zip(values, clips, strict=True)) / total


def calmer(clips: Sequence[VoiceClip]) -> list[VoiceClip]:
    """Return the clips of the lowest pitch that make up `CALMER` of the voiced time, the last one in part."""
    left = CALMER * sum(clip.voiced_s for clip in clips)
    found = []
    for clip in sorted(clips, key=lambda clip: (clip.pitch_low_hz, clip.formant_hz or 0.0)):
        found.append(replace(clip, voiced_s=min(clip.voiced_s, left)))
        left -= clip.voiced_s
        if left <= 0:
            break
    return found


def _lower_quartile(clips: Sequence[VoiceClip]) -> float:
    """Return the pitch below which a quarter of the voiced time lies."""
    seen, total = 0.0, sum(clip.voiced_s for clip in clips)
    for clip in sorted(clips, key=lambda clip: clip.pitch_low_hz):
        seen += clip.voiced_s
        if seen >= total / 4:
            return clip.pitch_low_hz
    return max(clip.pitch_low_hz for clip in clips)


class Gender(Expert):
    """Judge gender by measured pitch and the fourth formant. It needs no weights."""

    name = "gender"
    attribute = "gender"
    columns: ClassVar[tuple[str, ...]] = (
        "pitch_low_hz", "formant_hz", "voiced_share", "duration_s", "gender", "gender_p",
    )  # fmt: skip

    def judge(self, clips: Sequence[Clip]) -> list[Shares | None]:
        """Return the shares of each clip alone."""
        return [self.judge_voice([clip]) for clip in clips]

    def judge_voice(self, clips: Sequence[Clip]) -> Shares | None:
        """Return the shares of a voice from the pooled measures of its clips.

        If the rows have the pipeline's verdict (`gender`), which saw all moods of the voice, it must not differ: an open one
        stays open, and of two opposite ones none counts.
        """
        found = [(clip.row, measured) for clip in clips if (measured := _measured(clip))]
        female = female_p([measured for _, measured in found])
        if not any("gender" in row for row, _ in found):
            return None if female is None else {"female": female, "male": 1 - female}
        told = {row["gender"]: float(row.get("gender_p") or 0.0) for row, _ in found if row.get("gender")}
        if len(told) != 1:
            return None
        [(gender, p)] = told.items()
        if gender not in ("female", "male") or (female is not None and (female >= 0.5) != (gender == "female")):
            return None
        other = "male" if gender == "female" else "female"
        return {gender: p, other: 1 - p}


def _measured(clip: Clip) -> VoiceClip | None:
    row = clip.row
    if not row.get("pitch_low_hz"):
        return None
    voiced_s = float(row.get("duration_s") or 1.0) * float(row.get("voiced_share") or 1.0)
    return VoiceClip(float(row["pitch_low_hz"]), row.get("formant_hz"), voiced_s)
