"""Divide text that arrives in pieces into units that are spoken one after the other.

Where a unit ends depends on the text only, not on how it was divided into messages: an end is decided as soon as one more
character is known, and never reconsidered. Only `take_words`, which a timer calls, depends on time.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

from voxcpm.sequence.text_pieces import is_abbreviation, is_spoken, speaking_length

Granularity = Literal["none", "sentence", "clause"]
GRANULARITIES: tuple[Granularity, ...] = ("none", "sentence", "clause")

#: A Latin sentence ends only before white space, because of 3.5 and U.S.A. Marks that belong together end it together. A run of
#: them is read once, not from each of its marks.
_SENTENCE = re.compile(r"[。！？…；।؟۔]+[」』”’）]*|(?<![.!?;])[.!?;]++[\"'”’)\]]*+(?=\s)|\n+")
_CLAUSE = re.compile(rf"{_SENTENCE.pattern}|[，、：،]|[,:](?=\s)")
_WORD = re.compile(r"\s+")
_ENDS = {"none": None, "sentence": _SENTENCE, "clause": _CLAUSE}
_JOINERS = "\u200c\u200d\ufe0e\ufe0f"
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_LONGEST_CHARACTER = 32
"""Code points that a cut keeps together. A longer run of marks is garbage: going back to its beginning would make tiny units."""


class TextUnits:
    """Collects text and returns finished units.

    granularity: where units end: after sentences, also after clauses, or (none) only at a flush.
    longest_s: a longer unit is cut at the last sentence, clause or space that fits, otherwise anywhere; estimated seconds.
    shortest_s: a unit does not end before it is this long, so that "Yes." is joined to the next sentence; estimated seconds.
    """

    def __init__(self, granularity: Granularity = "sentence", longest_s: float = 12.0, shortest_s: float = 0.8) -> None:
        self._border = _ENDS[granularity]
        self._longest, self._shortest = longest_s, shortest_s
        # No character takes less than 1/14 s: these are too long, and show what follows the character that is too much.
        self._enough = int(longest_s * 14) + 3
        self._text = ""

    @property
    def waiting(self) -> bool:
        """True if text is held that a flush would return."""
        return is_spoken(self._text)

    def push(self, text: str) -> list[str]:
        """Add text and return the units that are finished. A character of two code units may be divided between two texts."""
        joined = self._text + text
        held = ""
        if _SURROGATE.search(joined):
            if "\ud800" <= joined[-1] <= "\udbff":
                joined, held = joined[:-1], joined[-1]
            joined = joined.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        units, at = [], 0
        # What comes later is neither read nor copied for a unit: the time grows with the length, not with its square.
        while end := self._end(joined[at : at + self._enough]):
            units.append(joined[at : at + end])
            at += end
        self._text = joined[at:] + held
        return _spoken(units)

    def flush(self) -> list[str]:
        """Return the rest as the last unit. Empties the buffer."""
        rest, self._text = _SURROGATE.sub("", self._text), ""
        return _spoken([rest])

    def take_words(self) -> list[str]:
        """Return the whole words that are waiting, and keep the last one, which may not be complete yet."""
        spaces = list(_WORD.finditer(self._text))
        end = spaces[-1].end() if spaces else 0
        unit, self._text = self._text[:end], self._text[end:]
        if is_spoken(unit):
            return _spoken([unit])
        self._text = unit + self._text
        return []

    def clear(self) -> None:
        """Drop what is waiting."""
        self._text = ""

    def _end(self, text: str) -> int:
        """Return where the first unit of a text ends; 0 if that cannot be decided yet."""
        limit = self._limit(text)
        for match in self._border.finditer(text, 0, limit + 1) if self._border is not None else ():
            # At the end of the text, the next character may belong to the same marks.
            if match.end() >= min(len(text), limit):
                break
            if not is_abbreviation(text, match.start()) and self._is_long_enough(text[: match.end()]):
                return match.end()
        return self._cut(text[:limit]) if limit <= len(text) else 0

    def _limit(self, text: str) -> int:
        """Return the length of the shortest start of the text that is too long, or more than the text's length."""
        low, high = 0, len(text) + 1
        while low < high - 1:
            middle = (low + high) // 2
            low, high = (low, middle) if speaking_length(text[:middle]) > self._longest else (middle, high)
        return high

    def _is_long_enough(self, unit: str) -> bool:
        return is_spoken(unit) and speaking_length(unit.strip()) >= self._shortest

    def _cut(self, start: str) -> int:
        """Return the best place before the last character of a start that is too long because of it."""
        limit = len(start)
        for border in (_SENTENCE, _CLAUSE, _WORD):
            found = [match for match in border.finditer(start) if not is_abbreviation(start, match.start())]
            ends = [match.end() for match in found if match.end() < limit]
            if ends and self._is_long_enough(start[: ends[-1]]):
                return ends[-1]
        for end in range(limit - 1, max(1, limit - 1 - _LONGEST_CHARACTER), -1):
            if not (unicodedata.combining(start[end]) or start[end] in _JOINERS or start[end - 1] in _JOINERS):
                return end
        return max(limit - 1, 1)


def _spoken(units: list[str]) -> list[str]:
    """Strip the units and leave out those with nothing to pronounce."""
    return [unit.strip() for unit in units if is_spoken(unit)]
