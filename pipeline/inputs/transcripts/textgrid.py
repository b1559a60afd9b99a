"""Praat's TextGrid, in its long and its short form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.inputs.transcripts.formats import SILENCE, Transcript, TranscriptError, timed
from pipeline.records import TimedText

# Strings, flags and numbers are the data; `item [2]:`, `xmin =` and comments are for human readers. A number within
# brackets, or one that touches a letter, is not data.
_TOKENS = re.compile(r'"((?:[^"]|"")*)"|<(exists|absent)>|(?<![\w\[.])(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?![\w\]])|!.*')
_UTTERANCES = re.compile(r"utter|sent|phrase|text|transcr|ortho|^ort$|^ipu|line|chunk|speech", re.IGNORECASE)
_WORDS = re.compile(r"word|token", re.IGNORECASE)
_SOUNDS = re.compile(r"phon|phone|segment|syll|mau|sampa|ipa|tone|break|pitch|note|comment|misc|pos$", re.IGNORECASE)

_Value = str | float | bool


@dataclass(frozen=True)
class _Tier:
    name: str
    spans: tuple[TimedText, ...]


def read_textgrid(text: str) -> Transcript:
    """Return the intervals of the tiers that hold utterances, otherwise of those that hold words, otherwise of the tier
    with the most text.

    Tiers of sounds (phones, syllables) and points are ignored. If each speaker has a tier, all are used.
    """
    tiers = [tier for tier in _tiers(text) if any(span.text for span in tier.spans)]
    useful = [tier for tier in tiers if not _SOUNDS.search(tier.name)]
    for pattern in (_UTTERANCES, _WORDS):
        if chosen := [tier for tier in useful if pattern.search(tier.name)]:
            return timed(span for tier in chosen for span in tier.spans)
    if not useful:
        raise TranscriptError("no tier of it holds words" if tiers else "it holds no text")
    return timed(max(useful, key=lambda tier: sum(len(span.text) for span in tier.spans)).spans)


def _tiers(text: str) -> list[_Tier]:
    data = iter(_values(text))
    try:
        kind = [next(data), next(data)]
        if kind != ["ooTextFile", "TextGrid"]:
            raise TranscriptError("it is not a TextGrid")
        _number(data), _number(data)
        if next(data) is not True:
            return []
        return [tier for _ in range(int(_number(data))) if (tier := _tier(data))]
    except StopIteration:
        raise TranscriptError("it ends in the middle") from None


def _tier(data: Iterator[_Value]) -> _Tier | None:
    kind, name = next(data), next(data)
    _number(data), _number(data)
    count = int(_number(data))
    if kind == "IntervalTier":
        spans = []
        for _ in range(count):
            start, end, label = _number(data), _number(data), next(data)
            words = " ".join(str(label).split())
            spans.append(TimedText(start, end, "" if words.lower() in SILENCE else words))
        return _Tier(str(name), tuple(spans))
    if kind == "TextTier":
        for _ in range(count):
            _number(data), next(data)
        return None
    raise TranscriptError(f"unknown kind of tier {kind!r}")


def _number(data: Iterator[_Value]) -> float:
    value = next(data)
    if isinstance(value, float):
        return value
    raise TranscriptError(f"a number is missing before {str(value)[:30]!r}")


def _values(text: str) -> list[_Value]:
    """Return the data of a TextGrid in order: strings, numbers as float, and the flag <exists> as True."""
    values: list[_Value] = []
    for match in _TOKENS.finditer(text):
        if match[1] is not None:
            values.append(match[1].replace('""', '"'))
        elif match[2]:
            values.append(match[2] == "exists")
        elif match[3]:
            values.append(float(match[3]))
    return values
