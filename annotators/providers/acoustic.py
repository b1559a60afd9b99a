"""The offline annotator: it puts measured scores into words. It needs no network, costs nothing and adds nothing unmeasured."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from annotators.providers.base import KeptRows, Provider
from annotators.quantiles import group_quantiles
from annotators.schema import Answer, Attributes, Clip, VoiceDescription

_MEASURES = ("pitch_hz", "rate_sps", "loudness_lufs", "pitch_range_st")
_ENOUGH = 8
"""Minimum number of clips for a group to have its own quantiles; a smaller group is compared with the whole corpus."""
# Quantiles below and above which a clip is called low and high: a quarter of the corpus each.
_LOW, _HIGH = 0.25, 0.75
# Typical adult read speech, used if a corpus is too small for quantiles.
_ORDINARY = {
    "pitch_hz": (110.0, 220.0),
    "rate_sps": (3.5, 5.5),
    "loudness_lufs": (-28.0, -18.0),
    "pitch_range_st": (4.0, 9.0),
}

_FEWEST_WORDS = 10

_Level = Literal["low", "mid", "high"]

_PITCH: dict[_Level, tuple[str, str]] = {
    "low": ("deep", "low-pitched"),
    "mid": ("mid-pitched", "medium-pitched"),
    "high": ("high-pitched", "bright"),
}
_RATE: dict[_Level, tuple[str, str]] = {
    "low": ("slowly", "at an unhurried pace"),
    "mid": ("at a moderate pace", "at an even pace"),
    "high": ("quickly", "at a brisk pace"),
}
_ENERGY: dict[_Level, tuple[str, str]] = {
    "low": ("softly", "with little force"),
    "mid": ("at a normal level", "evenly"),
    "high": ("loudly", "with force"),
}
_MELODY: dict[_Level, tuple[str, str]] = {
    "low": ("a flat, even melody", "little movement in the voice"),
    "mid": ("a natural melody", "a moderately moving voice"),
    "high": ("a lively, widely moving melody", "strong rises and falls"),
}
_MOOD: dict[_Level, tuple[str, str]] = {
    "low": ("calm and neutral", "matter-of-fact"),
    "mid": ("engaged", "attentive"),
    "high": ("very expressive", "animated"),
}


@dataclass(frozen=True)
class _Band:
    low: float
    high: float

    def level(self, value: float | None) -> _Level | None:
        if value is None:
            return None
        return "low" if value < self.low else "high" if value > self.high else "mid"


class Acoustic(Provider):
    """Put measured pitch, rate, level, melody and expressiveness into words.

    "High" and "low" are relative to quantiles of the corpus: of the clip's gender for pitch, of its language for rate. Fixed
    limits from one corpus do not fit another: they can call every low male voice "high-pitched". The segment id chooses among
    equal wordings, so the same clip always gets the same words. The transcript is never used.
    """

    name = "acoustic"
    model = "acoustic-1"
    prompt_version = "1"
    listens = False

    def __init__(self) -> None:
        self._bands: dict[tuple[str, str | None], _Band] = {}

    def prepare(self, kept: KeptRows) -> None:
        """Learn the quantiles of the corpus."""
        found = group_quantiles(lambda: _measured(kept((*_MEASURES, *_WITHIN.values()))), (_LOW, _HIGH), _ENOUGH)
        self._bands = {group: _Band(*band) for group, band in found.items()}

    def describe(self, clips: Sequence[Clip]) -> list[Answer]:
        """Return one description per clip, or an error for a clip that has no measured scores."""
        answers = []
        for clip in clips:
            said = self._describe(clip.row)
            answers.append(Answer(clip.segment_id, said, None if said else "nothing of the voice was measured"))
        return answers

    def _describe(self, row: dict[str, Any]) -> VoiceDescription | None:
        pick = _Picker(str(row["segment_id"]))
        pitch, rate, energy, melody = (self._level(measure, row) for measure in _MEASURES)
        expressive = row.get("expressive_p")
        mood: _Level | None = None
        if expressive is not None:
            mood = "low" if expressive < 0.35 else "high" if expressive > 0.65 else "mid"
        if not any((pitch, rate, energy, melody, mood)):
            return None
        gender = row.get("gender") if (row.get("gender_p") or 0) >= 0.6 else None
        who = {"male": "man", "female": "woman"}.get(str(gender), "speaker")
        brief = " ".join(filter(None, [pick(_MOOD, mood), pick(_PITCH, pitch), who]))
        how = [word for word in (pick(_RATE, rate), pick(_ENERGY, energy)) if word]
        voice = pick(_PITCH, pitch)
        full = f"{_article(f'{voice} {who}' if voice else who)} speaks"
        if how:
            full += f" {' and '.join(how)}"
        if melody:
            full += f"{',' if how else ''} with {pick(_MELODY, melody)}"
        full += "."
        if mood:
            full += f" The delivery is {pick(_MOOD, mood)}."
        if len(full.split()) < _FEWEST_WORDS:
            full += " The rest of the voice is hard to tell."
        return VoiceDescription(
            brief=brief[:1].upper() + brief[1:],
            full=full,
            attributes=Attributes(
                gender=gender,
                pitch=pitch,
                rate={"low": "slow", "mid": "normal", "high": "fast"}.get(rate or ""),
                energy={"low": "soft", "mid": "normal", "high": "loud"}.get(energy or ""),
                intensity=None if expressive is None else float(expressive),
            ),
        )

    def _level(self, measure: str, row: dict[str, Any]) -> _Level | None:
        band = self._bands.get((measure, _group(measure, row))) or self._bands.get((measure, None))
        return (band or _Band(*_ORDINARY[measure])).level(row.get(measure))


class _Picker:
    """Choose among equal wordings by the segment's id."""

    def __init__(self, segment_id: str) -> None:
        self._seed = segment_id

    def __call__(self, words: Mapping[_Level, tuple[str, ...]], level: _Level | None) -> str | None:
        if level is None:
            return None
        choices = words[level]
        digest = hashlib.sha256(f"{self._seed}{choices[0]}".encode()).digest()
        return choices[digest[0] % len(choices)]


_WITHIN = {"pitch_hz": "gender", "rate_sps": "language"}
"""Column by which clips are grouped for a measure; other measures are compared within the whole corpus."""


def _group(measure: str, row: dict[str, Any]) -> str | None:
    return str(row.get(_WITHIN[measure])) if measure in _WITHIN else None


def _measured(tables: Iterable[pa.Table]) -> Iterator[tuple[tuple[str, str | None], np.ndarray]]:
    """Yield ((measure, group or None for the whole corpus), values `[N] float32`) without nulls."""
    import pyarrow.compute as pc

    for table in tables:
        for measure in _MEASURES:
            rows = table.filter(pc.is_valid(table.column(measure)))
            values = rows.column(measure).to_numpy()
            yield (measure, None), values
            if measure in _WITHIN:
                groups = np.array([str(value) for value in rows.column(_WITHIN[measure]).to_pylist()], dtype=object)
                for group in sorted(set(groups)):
                    yield (measure, group), values[groups == group]


def _article(noun: str) -> str:
    return f"{'An' if noun[0] in 'aeiou' else 'A'} {noun}"
