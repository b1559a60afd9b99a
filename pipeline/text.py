"""Counting what is spoken: characters and syllables of a text, whatever its script."""

from __future__ import annotations

import re
import unicodedata

# One character of these is (at least) one syllable: Han, kana, Hangul syllables, Yi, and the syllabic Ethiopic.
_SYLLABIC = re.compile(r"[\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\ua000-\ua48f\u1200-\u137f]")
_SMALL_KANA = re.compile(r"[ぁぃぅぇぉゃゅょゎァィゥェォャュョヮー]")
_VOWELS = re.compile(
    "[aeiouyæøœıаеёиоуыэюяєіїαεηιουωአ]+|[\u05b0-\u05bb]|[\u064b-\u0650اويىأإآ]|[\u0904-\u0914\u093e-\u094c]",
    re.IGNORECASE,
)


def count_characters(text: str) -> int:
    """Letters and digits of a text (marks that change a letter are not counted): what chars_per_s counts."""
    return sum(unicodedata.category(character)[0] in "LN" for character in text)


def count_syllables(text: str) -> int:
    """Syllables, roughly: groups of vowels in alphabetic scripts, one a character in syllabic ones (small kana: none).

    Letters without any vowel sign (abbreviations, digits, abjads without marks) count one syllable a word at least.
    """
    syllabic = len(_SYLLABIC.findall(text)) - len(_SMALL_KANA.findall(text))
    rest = _SYLLABIC.sub(" ", text)
    plain = "".join(c for c in unicodedata.normalize("NFD", rest) if not "\u0300" <= c <= "\u036f")
    return syllabic + sum(
        max(1, len(_VOWELS.findall(word))) for word in plain.split() if any(c.isalnum() for c in word)
    )
