"""The offline annotator: it puts measured scores into words. It needs no network, costs nothing and adds nothing unmeasured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from annotators.providers.base import Provider
from annotators.schema import Answer, Attributes, Caption, Clip, KeptRows, VoiceDescription
from annotators.words.levels import Levels, sure_gender
from annotators.words.render import render
from catalogs.vocabulary.voices import UNSURE

_VOICE = ("segment_id", "session_id", "speaker", "gender", "gender_p", "pitch_hz", "duration_s")
# Expressiveness below the first is neutral speech; the others divide mild, clear and strong.
_NEUTRAL, _CLEAR, _STRONG = 0.25, 0.5, 0.8
_DRAWS = 30
"""Draws of a caption, if others of its unit have the first ones. A clip of which little was measured has few wordings."""


@dataclass(frozen=True)
class PooledVoice:
    """What all clips of a voice say of it together. seed chooses the wording of its identity."""

    seed: str
    gender: str | None
    pitch_hz: float | None


class Acoustic(Provider):
    """Put measured gender, pitch, rate, effort, melody and expressiveness into captions.

    "High" and "fast" are relative to the corpus (annotators.words.levels). Gender and pitch are those of the voice, pooled over
    its clips of a unit: its captions agree on them and use the same words for them; the delivery is the clip's own. The same unit
    always gets the same words, and no two of its clips the same caption if there are enough wordings. The transcript is never used.
    """

    name = "acoustic"
    model = "acoustic-3"
    prompt_version = "3"
    listens = False

    def __init__(self) -> None:
        self._levels = Levels()
        self._voices: dict[str, PooledVoice] = {}
        self._said: dict[tuple[str, str, str], str] = {}

    def prepare(self, kept: KeptRows) -> None:
        """Learn the quantiles of the corpus."""
        self._levels.learn(kept)

    def begin_unit(self, rows: pa.Table) -> None:
        """Pool the measures of each voice. Memory holds the voices of one unit."""
        self._voices = pooled(rows.select(list(_VOICE)).to_pylist())
        self._said = {}

    def remember(self, segment_id: str, captions: Sequence[Caption]) -> None:
        """Note captions that a clip of the unit has already, so that no other clip gets them."""
        for caption in captions:
            self._said.setdefault((caption.register, caption.language, caption.text), segment_id)

    def describe(self, clips: Sequence[Clip]) -> list[Answer]:
        """Return one description per clip, or an error for a clip that has no measured scores."""
        answers = []
        for clip in clips:
            said = self._describe(clip.row)
            answers.append(Answer(clip.segment_id, said, None if said else "nothing of the voice was measured"))
        return answers

    def _describe(self, row: Mapping[str, Any]) -> VoiceDescription | None:
        key = _voice_of(row)
        voice = self._voices.get(key) or pooled([row])[key]
        levels = {
            "pitch": self._levels.level("pitch", voice.pitch_hz, voice.gender),
            "rate": self._levels.level("rate", row.get("rate_sps"), row.get("language")),
            "energy": self._levels.level("energy", row.get("effort_db"))
            or self._levels.level("loudness", row.get("loudness_lufs")),
            "pitch_range": self._levels.level("pitch_range", row.get("pitch_range_st")),
            **_feeling(row.get("expressive_p")),
        }
        found = {name: level for name, level in levels.items() if level is not None}
        if not found:
            return None
        attributes = Attributes(gender=voice.gender or UNSURE, **found)
        return VoiceDescription(
            attributes=attributes, captions=self._captions(attributes, str(row["segment_id"]), voice.seed)
        )

    def _captions(self, attributes: Attributes, segment_id: str, voice: str) -> tuple[Caption, ...]:
        """Return the clip's captions. One that another clip of the unit has is drawn again: a voice is in one unit only."""
        captions = []
        for first in render(attributes, segment_id, voice=voice):
            caption = first
            for draw in range(1, _DRAWS):
                key = (caption.register, caption.language, caption.text)
                if self._said.setdefault(key, segment_id) == segment_id:
                    break
                [caption] = render(
                    attributes, f"{segment_id}/{draw}", (first.register,), (first.language,), voice=voice
                )
            captions.append(caption)
        return tuple(captions)


def pooled(rows: Sequence[Mapping[str, Any]]) -> dict[str, PooledVoice]:
    """Return each voice of the rows: its gender by the mean probability over its clips, and the median of their pitches."""
    clips: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        clips.setdefault(_voice_of(row), []).append(row)
    return {voice: _pooled(voice, found) for voice, found in clips.items()}


def _pooled(voice: str, rows: Sequence[Mapping[str, Any]]) -> PooledVoice:
    judged = [row for row in rows if row.get("gender") in ("male", "female") and (row.get("gender_p") or 0.0) >= 0.5]
    gender = None
    if judged:
        weights = [row.get("duration_s") or 1.0 for row in judged]
        female = [row["gender_p"] if row["gender"] == "female" else 1.0 - row["gender_p"] for row in judged]
        p = float(np.average(female, weights=weights))
        gender = sure_gender("female", p) or sure_gender("male", 1.0 - p)
    pitches = [row["pitch_hz"] for row in rows if row.get("pitch_hz") is not None]
    return PooledVoice(voice, gender, float(np.median(pitches)) if pitches else None)


def _voice_of(row: Mapping[str, Any]) -> str:
    """Return the voice of a clip: its speaker within its session, or the clip itself."""
    speaker = row.get("speaker")
    return f"{row.get('session_id')}/{speaker}" if speaker else str(row["segment_id"])


def _feeling(expressive_p: float | None) -> dict[str, str]:
    """Return what expressiveness says: how much feeling is heard, never which."""
    if expressive_p is None:
        return {}
    if expressive_p < _NEUTRAL:
        return {"emotion": "neutral", "strength": "none"}
    return {"strength": "mild" if expressive_p < _CLEAR else "clear" if expressive_p < _STRONG else "strong"}
