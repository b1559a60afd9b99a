"""The text rules of Seed-TTS-Eval, exactly: the dialect `official`.

Every mark of two sets is deleted, not replaced by a space: ASCII punctuation except the apostrophe, and the punctuation of the
package zhon, which its script uses. Numbers stay as they are written, on purpose. The result has known oddities, which are kept:
a curly apostrophe is deleted and a straight one is not, and "well-known" is one word.
"""

from __future__ import annotations

import re
import string

from catalogs.vocabulary.comparable_text import is_unspaced, simplified

VERSION = 1
"""Raised when the result changes for any text."""


def _characters(*ranges: tuple[int, int]) -> str:
    return "".join(chr(code) for first, last in ranges for code in range(first, last + 1))


_FULL_WIDTH = "".join(chr(ord(mark) + 0xFEE0) for mark in string.punctuation)
"""Full-width forms of ASCII punctuation, U+FF01 to U+FF5E."""
_CJK = _characters(
    (0x3000, 0x3003),  # Ideographic space (deleted as well), comma, full stop, ditto mark
    (0x3008, 0x3011),  # Angle, corner and lenticular brackets
    (0x3014, 0x301F),  # Tortoise shell and white brackets, wave dash, quotation marks
    (0x3030, 0x3030),  # Wavy dash
    (0x303E, 0x303F),  # Variation indicator, half fill space
    (0xFF5F, 0xFF64),  # Full-width white parentheses, half-width corner brackets, full stop and comma
    (0xFE4F, 0xFE4F),  # Wavy low line
    (0xFE51, 0xFE51),  # Small ideographic comma
    (0xFE54, 0xFE54),  # Small semicolon
)
_GENERAL = _characters(
    (0x00B7, 0x00B7),  # Middle dot
    (0x2013, 0x2014),  # Dashes
    (0x2018, 0x2019),  # Single quotation marks: the second is the curly apostrophe
    (0x201B, 0x201F),  # Reversed and double quotation marks
    (0x2026, 0x2027),  # Ellipsis, hyphenation point
)
DELETED = frozenset((_FULL_WIDTH + _CJK + _GENERAL + string.punctuation).replace("'", ""))
"""What is deleted from both texts."""
_DELETE = dict.fromkeys(map(ord, DELETED))


def official_units(text: str, language: str, heard: bool = False) -> list[str]:
    """Return what is compared: the words in lower case, or the characters of a language that is written without spaces.

    `heard`: the text of a recognizer, which becomes simplified if it is Chinese. The reference is taken as it is written.
    Seed-TTS-Eval defines English and Chinese; other languages are compared by the rules of one of the two.
    """
    if heard:
        text = simplified(text, language)
    plain = text.translate(_DELETE).replace("  ", " ")
    if is_unspaced(language):
        return [character for character in plain if not character.isspace()]
    # As jiwer splits, which the script calls: several white spaces are one, and only a space separates.
    words = re.sub(r"\s\s+", " ", plain.lower()).strip().split(" ")
    return [word for word in words if word]
