"""What measures, experts and votes say of a clip: the side of the evidence in `annotators.verification.verify`.

Bands are wide and grey zones are empty: evidence refutes a value only if it is clearly wrong, so that a repair never replaces
an opinion by a coin toss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from annotators.experts.emotion import aroused_p
from annotators.verification.scales import Scales
from catalogs.vocabulary.voices import AGES, CLOSED, QUADRANTS, THREE

SURE = 0.9
"""Minimum probability of a gender, and of an age outside a refuted band."""
_AROUSED = 0.8
_EXPRESSIVE, _FLAT = 0.85, 0.2
"""Expressiveness above which a clip cannot be neutral, and below which an emotion cannot be strong."""
_EITHER = frozenset({"sad"})
"""Emotions of both sides: grief that is cried is as aroused as anger (46 % of RAVDESS' sad clips)."""
_VOICED = 0.3
"""Voiced share above which speech is not a whisper. Modal speech has 0.28-0.8 of all frames, whispers nearly none."""


@dataclass(frozen=True)
class Finding:
    """What evidence says of one attribute."""

    attribute: str
    value: str | None
    """Value to write instead of a refuted one; None if the evidence only refutes."""
    refuted: frozenset[str]
    """Values that are clearly wrong; of pitch, rate and energy the three levels, and `whisper`."""
    p: float
    """Probability that the refutation is right."""
    source: str
    """Column, expert or vote it comes from."""

    def contradicts(self, value: str, negated: bool = False) -> bool:
        """Return True if the evidence refutes a claim. A denial is refuted if every other level is; that of an extreme ("not
        very fast", "no whisper") never, since the level itself is left."""
        if not negated:
            return value in self.refuted or self._level(value) in self.refuted
        if value != self._level(value):
            return False
        others = set(self._levels()) - {value}
        return value in self._levels() and others <= self.refuted

    def speaks_of(self, value: str) -> bool:
        """Return True if the value can be compared at all: `varied` cannot."""
        return value in self.refuted or self._level(value) in self._levels()

    def _level(self, value: str) -> str:
        return THREE.get(self.attribute, {}).get(value, value)

    def _levels(self) -> tuple[str, ...]:
        """Return the values that the evidence can tell apart."""
        if self.attribute in THREE:
            return tuple(dict.fromkeys(THREE[self.attribute].values()))
        return CLOSED.get(self.attribute, ())


Evidence = Mapping[str, Finding]
"""The finding of each attribute that has one. An attribute without a finding stays unchecked."""


def gender_finding(shares: Mapping[str, float] | None, source: str) -> Finding | None:
    """Return the finding on gender; None in the grey zone."""
    if not shares:
        return None
    value = max(shares, key=lambda gender: shares[gender])
    if shares[value] < SURE:
        return None
    return Finding("gender", value, frozenset(CLOSED["gender"]) - {value}, shares[value], source)


def age_finding(shares: Mapping[str, float] | None, source: str) -> Finding | None:
    """Return the finding on age: it refutes bands more than one step from the likeliest that have less than 0.1 of the mass."""
    if not shares:
        return None
    mode = max(AGES, key=lambda band: shares.get(band, 0.0))
    refuted = {
        band for band in AGES if abs(AGES.index(band) - AGES.index(mode)) > 1 and shares.get(band, 0.0) < 1 - SURE
    }
    mass = sum(shares.get(band, 0.0) for band in refuted)
    return Finding("age", mode, frozenset(refuted), 1 - mass, source) if refuted else None


_NAMES = {
    "pitch": {"low": "low", "mid": "mid", "high": "high"},
    "rate": {"low": "slow", "mid": "normal", "high": "fast"},
    "energy": {"low": "soft", "mid": "normal", "high": "loud"},
    "pitch_range": {"low": "flat", "mid": "moderate", "high": "lively"},
}
"""Values of the attributes for the three levels of a scale."""


def clip_findings(
    row: Mapping[str, Any],
    scales: Scales,
    gender: str | None,
    resting_hz: float | None,
    voice_hz: float | None = None,
) -> dict[str, Finding]:
    """Return what the measures of one clip (INDEX columns) say.

    gender: that of the voice if it is known; pitch is compared within it, otherwise within both. resting_hz: the pitch at
    which the voice rests. voice_hz: its median pitch. A describer may mean the clip or the voice: only what is wrong for both is
    refuted.
    """
    groups = (gender,) if gender else CLOSED["gender"]
    found = [
        _both(_level("pitch", "pitch_hz", row, scales, groups), voice_hz, scales, groups),
        _level("rate", "rate_sps", row, scales, (row.get("language"),)),
        _energy(row, scales),
        _level("pitch_range", "pitch_range_st", row, scales, (None,)),
        *_emotion(row, resting_hz),
    ]
    return {finding.attribute: finding for finding in found if finding is not None}


def _both(clip: Finding | None, voice_hz: float | None, scales: Scales, groups: Sequence[str | None]) -> Finding | None:
    """Return the finding on the pitch of a clip without what is right for its voice."""
    voice = _level("pitch", "pitch_hz", {"pitch_hz": voice_hz}, scales, groups)
    if clip is None or voice is None:
        return clip
    refuted = clip.refuted & voice.refuted
    return replace(clip, refuted=refuted, value=voice.value if clip.value in refuted else clip.value)


def _level(
    attribute: str, column: str, row: Mapping[str, Any], scales: Scales, groups: Sequence[str | None]
) -> Finding | None:
    """Return the finding on a level. With several groups, it refutes what is wrong in each."""
    value = row.get(column)
    if value is None or not math.isfinite(value):
        return None
    places = [scales.place(column, group, float(value)) for group in groups]
    names = _NAMES[attribute]
    refuted = frozenset(names[level] for level in frozenset.intersection(*(place.refuted for place in places)))
    levels = {names[place.level] for place in places}
    found = levels.pop() if len(levels) == 1 else None
    return Finding(attribute, found, refuted, min(place.p for place in places), column)


def _energy(row: Mapping[str, Any], scales: Scales) -> Finding | None:
    """Return the finding on energy: vocal effort, and that voiced speech is not a whisper."""
    effort = _level("energy", "effort_db", row, scales, (None,))
    voiced = row.get("voiced_share")
    if voiced is None or voiced <= _VOICED:
        # A whisper is bright without effort: nothing else is compared.
        return None
    if effort is None:
        return Finding("energy", None, frozenset({"whisper"}), SURE, "voiced_share")
    return replace(effort, refuted=effort.refuted | {"whisper"})


def _emotion(row: Mapping[str, Any], resting_hz: float | None) -> list[Finding]:
    """Return findings on arousal, emotion and strength, in languages in which they are proven."""
    found = []
    aroused, expressive = aroused_p(row, resting_hz), row.get("expressive_p")
    if aroused is None or expressive is None:
        return []
    refuted: set[str] = set()
    if max(aroused, 1 - aroused) >= _AROUSED:
        value, wrong = ("high", "low") if aroused >= 0.5 else ("low", "high")
        found.append(Finding("arousal", value, frozenset({wrong}), max(aroused, 1 - aroused), "arousal"))
        refuted = {emotion for emotion, (arousal, _) in QUADRANTS.items() if arousal == wrong} - _EITHER
    if expressive > _EXPRESSIVE:
        refuted.add("neutral")
        found.append(Finding("strength", None, frozenset({"none"}), float(expressive), "expressive_p"))
    elif expressive < _FLAT:
        found.append(Finding("strength", None, frozenset({"strong"}), 1 - float(expressive), "expressive_p"))
    if refuted:
        found.append(Finding("emotion", None, frozenset(refuted), max(aroused, 1 - aroused), "arousal"))
    return found
