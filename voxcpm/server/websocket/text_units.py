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

#: A Latin sentence ends only before white space, because of 3.5 and U.S.A. Marks that belong together end it together.
_SENTENCE = re.compile(r"[。！？…；।؟۔]+[」』”’）]*|[.!?;]+[\"'”’)\]]*(?=\s)|\n+")
_CLAUSE = re.compile(rf"{_SENTENCE.pattern}|[，、：،]|[,:](?=\s)")
_WORD = re.compile(r"\s+")
_ENDS = {"none": None, "sentence": _SENTENCE, "clause": _CLAUSE}
_JOINERS = "\u200c\u200d\ufe0e\ufe0f"
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class TextUnits:
    """Collects text and returns finished units.

    granularity: where units end: after sentences, also after clauses, or (none) only at a flush.
    longest_s: a longer unit is cut at the last sentence, clause or space that fits, otherwise anywhere; estimated seconds.
    shortest_s: a unit does not end before it is this long, so that "Yes." is joined to the next sentence; estimated seconds.
    """

    def __init__(self, granularity: Granularity = "sentence", longest_s: float = 12.0, shortest_s: float = 0.8) -> None:
        self._border = _ENDS[granularity]
        self._longest, self._shortest = longest_s, shortest_s
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
        self._text = joined
        units = []
        while end := self._end():
            units.append(self._text[:end])
            self._text = self._text[end:]
        self._text += held
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

    def _end(self) -> int:
        """Return where the first unit ends; 0 if that cannot be decided yet."""
        limit = self._limit()
        # What comes after the limit is not read: a text of 100,000 characters would be read again for each of its units.
        for match in self._border.finditer(self._text, 0, limit + 1) if self._border is not None else ():
            # At the end of the text, the next character may belong to the same marks.
            if match.end() >= min(len(self._text), limit):
                break
            if not is_abbreviation(self._text, match.start()) and self._is_long_enough(match.end()):
                return match.end()
        return self._cut(limit) if limit <= len(self._text) else 0

    def _limit(self) -> int:
        """Return the length of the shortest start of the text that is too long, or more than the text's length."""
        # No character takes less than 1/14 s, so that a longer start need not be read.
        start = self._text[: int(self._longest * 14) + 2]
        low, high = 0, len(start) + 1
        while low < high - 1:
            middle = (low + high) // 2
            low, high = (low, middle) if speaking_length(start[:middle]) > self._longest else (middle, high)
        return high if high <= len(start) else len(self._text) + 1

    def _is_long_enough(self, end: int) -> bool:
        start = self._text[:end].strip()
        return is_spoken(start) and speaking_length(start) >= self._shortest

    def _cut(self, limit: int) -> int:
        """Return the best place before the character at which the text becomes too long."""
        start = self._text[:limit]
        for border in (_SENTENCE, _CLAUSE, _WORD):
            found = [match for match in border.finditer(start) if not is_abbreviation(start, match.start())]
            ends = [match.end() for match in found if match.end() < limit]
            if ends and self._is_long_enough(ends[-1]):
                return ends[-1]
        end = limit - 1
        while end > 1 and (unicodedata.combining(start[end]) or start[end] in _JOINERS or start[end - 1] in _JOINERS):
            end -= 1
        return max(end, 1)


def _spoken(units: list[str]) -> list[str]:
    """Strip the units and leave out those with nothing to pronounce."""
    return [unit.strip() for unit in units if is_spoken(unit)]
