"""Characters and syllables of a text, and how many per second a speaker of the language can say."""

from __future__ import annotations

import re
import unicodedata

from catalogs.vocabulary.languages import language as known_language

# Each character of these is (at least) one syllable: Han, kana, Hangul syllables, Yi, and the syllabic Ethiopic.
_SYLLABIC = re.compile(r"[\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\ua000-\ua48f\u1200-\u137f]")
_SMALL_KANA = re.compile(r"[ぁぃぅぇぉゃゅょゎァィゥェォャュョヮー]")
_VOWELS = re.compile(
    "[aeiouyæøœıаеёиоуыэюяєіїαεηιουωአ]+|[\u05b0-\u05bb]|[\u064b-\u0650اويىأإآ]|[\u0904-\u0914\u093e-\u094c]",
    re.IGNORECASE,
)

#: Letters per second by script, slowest and fastest: about a third of, and twice, the rate of readers of such languages.
#: Marks are not letters (Thai, Hindi), and Arabic and Hebrew leave their vowels out.
_RATES: dict[str, tuple[float, float]] = {
    "Latn": (4.0, 28.0),
    "Cyrl": (4.0, 28.0),
    "Grek": (4.0, 28.0),
    "Arab": (3.0, 22.0),
    "Hebr": (3.0, 22.0),
    "Deva": (3.0, 22.0),
    "Thai": (3.0, 24.0),
    "Laoo": (3.0, 24.0),
    "Khmr": (3.0, 24.0),
    "Mymr": (2.5, 22.0),
    "Hani": (1.5, 10.0),
    "Kore": (1.8, 12.0),
    "Jpan": (2.5, 16.0),
}
_LEAST_LETTERS, _LEAST_S = 6, 0.8


def count_characters(text: str) -> int:
    """Return the number of letters and digits of a text, without marks that change a letter. This is what chars_per_s
    counts."""
    return sum(unicodedata.category(character)[0] in "LN" for character in text)


def count_syllables(text: str) -> int:
    """Return the approximate number of syllables: groups of vowels in alphabetic scripts, one per character in syllabic
    ones (small kana: none).

    Words without any vowel sign (abbreviations, digits, abjads without marks) count as at least one syllable each.
    """
    syllabic = len(_SYLLABIC.findall(text)) - len(_SMALL_KANA.findall(text))
    rest = _SYLLABIC.sub(" ", text)
    plain = "".join(c for c in unicodedata.normalize("NFD", rest) if not "\u0300" <= c <= "\u036f")
    return syllabic + sum(
        max(1, len(_VOWELS.findall(word))) for word in plain.split() if any(c.isalnum() for c in word)
    )


def usual_letters_per_s(language: str | None) -> float | None:
    """Return the letters per second of an average reader of a language; None outside the 30."""
    known = known_language(language)
    return _RATES[known.script][1] / 2 if known else None


def rate_is_unusual(text: str, spoken_s: float, language: str | None) -> bool:
    """Return True if nobody can say this text in this time (seconds of voice, without head and tail silence).

    Return False if that cannot be judged: for short texts, for languages outside the 30, and for digits, which are longer
    when spoken.
    """
    known = known_language(language)
    letters = count_characters(text)
    if known is None or known.script not in _RATES or spoken_s < _LEAST_S or letters < _LEAST_LETTERS:
        return False
    if sum(c.isdigit() for c in text) * 5 > letters:
        return False
    slowest, fastest = _RATES[known.script]
    return not slowest <= letters / spoken_s <= fastest
