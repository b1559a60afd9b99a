"""Where a text may be divided, and how long its parts take to speak. Nothing here needs the model."""

from __future__ import annotations

import re
from itertools import pairwise

#: Places where a piece may end, best first: after sentences, after commas, at spaces. A Latin sentence ends only before white
#: space, because of 3.5 and U.S.A.
BORDERS = (
    re.compile(r"(?<=[。！？…；])[」』”’）]*|(?<=[.!?;])[\"'”’)\]]*(?=\s)|\n+"),
    re.compile(r"(?<=[，、：])|(?<=[,:])(?=\s)"),
    re.compile(r"(?<=\s)(?=\S)"),
)
#: Words before a period that does not end a sentence: single letters, titles, and what is always followed by more.
_ABBREVIATION = re.compile(
    r"(?<!\w)(?:[^\W\d_]|[^\W\d_]\.[^\W\d_]|dr|mr|mrs|ms|prof|st|vs|fig|approx|nr|bzw|ca|sog|inkl|mme|mlle|sra|srta|dra)\Z",
    re.IGNORECASE,
)
_LONGEST_ABBREVIATION = 8
_DESCRIPTION = re.compile(r"^\s*(\([^()]*\))")
_DENSE = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]")


def speaking_length(text: str) -> float:
    """Estimate the seconds of speech: 14 characters per second, 4.5 for scripts with one character per syllable."""
    dense = len(_DENSE.findall(text))
    return dense / 4.5 + (len(text) - dense) / 14.0


def split_description(text: str) -> tuple[str, str]:
    """Return (the description in parentheses before a text, "" if there is none; the text that is spoken)."""
    found = _DESCRIPTION.match(text)
    return (found.group(1), text[found.end() :]) if found else ("", text)


def is_abbreviation(text: str, period: int) -> bool:
    """Return True if the period at this index belongs to an abbreviation, as in "Dr. Smith"."""
    return (
        text[period] == "." and _ABBREVIATION.search(text[max(0, period - _LONGEST_ABBREVIATION) : period]) is not None
    )


def is_spoken(text: str) -> bool:
    """Return True if a text has a letter or a digit: something to pronounce."""
    return re.search(r"\w", text) is not None


def _cut(text: str, borders: re.Pattern[str]) -> list[str]:
    ends = [
        end for end in (match.end() for match in borders.finditer(text)) if not (end and is_abbreviation(text, end - 1))
    ]
    ends.append(len(text))
    return [text[start:end] for start, end in pairwise([0, *ends]) if end > start]


def _atoms(text: str, longest_s: float, level: int = 0) -> list[str]:
    """Split a text into parts of at most `longest_s` seconds, at the best borders that allow it."""
    if speaking_length(text) <= longest_s:
        return [text]
    if level == len(BORDERS):
        half = len(text) // 2
        return [text] if half == 0 else [*_atoms(text[:half], longest_s, level), *_atoms(text[half:], longest_s, level)]
    return _join(
        [atom for part in _cut(text, BORDERS[level]) for atom in _atoms(part, longest_s, level + 1)], longest_s
    )


def _join(atoms: list[str], longest_s: float) -> list[str]:
    """Join neighboring parts as long as they fit."""
    pieces: list[str] = []
    for atom in atoms:
        if pieces and speaking_length(pieces[-1] + atom) <= longest_s:
            pieces[-1] += atom
        else:
            pieces.append(atom)
    return pieces


def split_text(text: str, longest_s: float = 12.0) -> list[str]:
    """Split a text into pieces of at most about `longest_s` seconds of speech.

    Whole sentences are joined. A longer sentence is cut at commas, then at spaces, then anywhere. Every letter and digit is in
    one piece. What has nothing to pronounce is joined to its neighbor; what would make that piece twice too long is left out.
    """
    pieces: list[str] = []
    for piece in (part.strip() for part in _atoms(text, longest_s)):
        if not piece:
            continue
        spoken = is_spoken(piece)
        if not pieces or (spoken and is_spoken(pieces[-1])):
            pieces.append(piece)
        elif speaking_length(pieces[-1] + piece) <= 2 * longest_s:
            pieces[-1] += piece
        elif spoken:
            # All that came before has nothing to pronounce.
            pieces[-1] = piece
    return pieces
