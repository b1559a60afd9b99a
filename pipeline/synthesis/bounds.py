"""What a content-decoupled sample must keep of its source: scores of a clip, the bounds on them, and the reasons that follow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Limit = float | None


class Bounds(BaseModel):
    """Bounds on the scores of a clip; null switches one off. A bound does not apply to a score that is null.

    The defaults lose few right clips: actors who repeat an emotion differ from themselves by up to these values
    (`benchmarks/quality/decoupled_checks.py`). They find gross errors; stricter ones cost right clips.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_cer: Limit = Field(0.3, ge=0)
    """Character error rate of what is recognized, against the text."""
    min_cosine: Limit = Field(0.55, ge=-1, le=1)
    """Cosine of the voiceprints of the clip and the timbre's clip, which is the reference of the sample."""
    min_source_cosine: Limit = Field(0.65, ge=-1, le=1)
    """Cosine of the voiceprints of the clip and the described segment."""
    min_voice_margin: Limit = Field(-0.02, ge=-1, le=1)
    """Cosine to the mean voiceprint of the source's voice minus that to the most similar other voice of the corpus."""
    max_pitch_st: Limit = Field(7.5, gt=0)
    """Semitones between the median pitches of the clip and the described segment, in either direction."""
    max_range_st: Limit = Field(16.0, gt=0)
    """Semitones by which the pitch range (10th to 90th percentile) may differ, in either direction."""
    max_rate: Limit = Field(1.7, gt=1)
    """Factor between the syllables per second of the clip and of the described segment, in either direction."""
    max_energy_db: Limit = Field(9.0, gt=0)
    """dB between the levels of the speech, in either direction."""
    max_less_expressive: Limit = Field(0.8, gt=0, le=1)
    """By how much the clip may be less expressive (`expressive_p`) than the described segment."""


@dataclass(frozen=True)
class BoundRule:
    """One rule: `reason` applies if `score` is beyond the bound `setting`. `both`: the magnitude of the score is bounded."""

    reason: str
    score: str
    side: Literal["above", "below", "both"]
    setting: str
    words: str


BOUND_RULES: tuple[BoundRule, ...] = (
    BoundRule("wrong_text", "cer", "above", "max_cer", "the text is not what is heard"),
    BoundRule("other_timbre", "cosine", "below", "min_cosine", "the voice is not that of the reference"),
    BoundRule("other_voice", "source_cosine", "below", "min_source_cosine", "the voice is not that of the source"),
    BoundRule("another_voice", "voice_margin", "below", "min_voice_margin", "another voice of the corpus is nearer"),
    BoundRule("pitch_differs", "pitch_st", "both", "max_pitch_st", "the pitch is not that of the source"),
    BoundRule("range_differs", "range_st", "both", "max_range_st", "the melody is flatter or wider than the source's"),
    BoundRule("rate_differs", "rate_octaves", "both", "max_rate", "slower or faster than the source"),
    BoundRule("level_differs", "energy_db", "both", "max_energy_db", "softer or louder than the source"),
    BoundRule("less_expressive", "expressive", "below", "max_less_expressive", "less expressive than the source"),
)

FAULTS: dict[str, str] = {
    "silent": "nothing is spoken in it",
    "never_ended": "the model did not end by itself",
    "stops_early": "the end of the text is missing",
    "repeats": "words are repeated",
    "tail": "sound or words follow the end of the text",
}
"""Faults that reject a clip whatever the bounds are."""
REASON_WORDS: dict[str, str] = (
    {rule.reason: rule.words for rule in BOUND_RULES}
    | FAULTS
    | {
        "failed_generation": "the model could not speak it",
        "below_thresholds": "the thresholds of the corpus do not keep it",
        "another_attempt": "another attempt at the pair is accepted",
        "source_gone": "its source or its timbre is not kept any more",
        "held_out": "its source, its timbre or its text may be held out",
    }
)
SCORES: tuple[str, ...] = tuple(rule.score for rule in BOUND_RULES)


def reasons_against(scores: Mapping[str, Any], bounds: Bounds) -> list[str]:
    """Return the reasons against a clip with these scores (the columns of `decoupled`): its faults, then the bounds it breaks."""
    found = list(scores.get("faults") or ())
    for rule in BOUND_RULES:
        value, limit = scores.get(rule.score), _limit(rule, bounds)
        if value is None or limit is None:
            continue
        beyond = {"above": value > limit, "below": value < limit, "both": abs(value) > limit}[rule.side]
        if beyond:
            found.append(rule.reason)
    return found


def _limit(rule: BoundRule, bounds: Bounds) -> float | None:
    """Return the bound of a score, in the unit of the score."""
    limit: float | None = getattr(bounds, rule.setting)
    if limit is None:
        return None
    if rule.score == "rate_octaves":
        return math.log2(limit)
    return -limit if rule.score == "expressive" else limit


def accepted_sql(bounds: Bounds) -> str:
    """Return the same rules as an SQL condition over the view `decoupled`, so that other bounds are tried as a query."""
    parts = ["cer IS NOT NULL", "coalesce(len(faults), 0) = 0"]
    for rule in BOUND_RULES:
        limit = _limit(rule, bounds)
        if limit is None:
            continue
        value = f"abs({rule.score})" if rule.side == "both" else rule.score
        sign = "<=" if rule.side in ("above", "both") else ">="
        parts.append(f"coalesce({value} {sign} {limit!r}, true)")
    return " AND ".join(parts)
