"""Arousal of a clip by its prosody: how much more moved than its voice at rest. A rule that `verify` always uses, not an expert.

Labels of emotions do not transfer between corpora; arousal does between some languages. The rule has no fitted weights beside
those of `expressive_p`: it adds how far the pitch is above the voice's resting pitch, pooled over the voice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

PROVEN = ("de", "en", "pl")
"""Languages in which `benchmarks/quality/experts.py` finds that it separates high from low arousal. In Korean it is chance."""
PER_SEMITONE = 1 / 3
"""Log odds per semitone above the resting pitch."""
LEAST_P = 1e-3
"""Least distance of `expressive_p` from 0 and 1."""
_CENTER, _SLOPE = 0.6, 0.9
_CLEAREST = 6.0


def expressive_score(row: Mapping[str, Any], resting_hz: float | None) -> float | None:
    """Return how moved a clip is, as log odds, by its INDEX columns; None if it was not measured.

    resting_hz: lower quartile of the pitches of its voice; None if the voice is not known.
    """
    expressive, pitch = row.get("expressive_p"), row.get("pitch_hz")
    if expressive is None:
        return None
    odds = math.log(max(expressive, LEAST_P) / max(1 - expressive, LEAST_P))
    if not pitch or not resting_hz:
        return odds
    return odds + PER_SEMITONE * 12 * math.log2(pitch / resting_hz)


def aroused_p(row: Mapping[str, Any], resting_hz: float | None) -> float | None:
    """Return the probability of high and not low arousal; None in languages in which it is not proven or without a voice."""
    if (row.get("language") or "").split("-")[0] not in PROVEN or not resting_hz:
        return None
    score = expressive_score(row, resting_hz)
    if score is None:
        return None
    return 1 / (1 + math.exp(-_SLOPE * max(-_CLEAREST, min(_CLEAREST, score - _CENTER))))


def resting_pitch(pitches: Sequence[float]) -> float | None:
    """Return the pitch in Hz at which a voice rests: the lower quartile of the pitches of its clips. None for fewer than 2."""
    if len(pitches) < 2:
        return None
    ordered = sorted(pitches)
    place = (len(ordered) - 1) / 4
    below = int(place)
    return ordered[below] + (place - below) * (ordered[min(below + 1, len(ordered) - 1)] - ordered[below])
