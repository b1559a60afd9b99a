"""What two transcripts must share to count as the same words: the text rules of the error rates.

Both sides go through them alike, those of the pipeline and those of the recogniser alone:

* English: `whisper-normalizer`'s English rules (case, punctuation, contractions, spelling variants, numbers as digits);
  other languages its basic rules (case, punctuation, remarks in brackets), with the marks of Brahmic scripts kept.
* Digits are spelt out in the language with num2words, as recognisers write "1" where a transcript says "one". Where
  num2words does not know the language, digits stay.
* Accents that a language's transcripts write or leave out at will are taken away: all of Spanish ("grabacion" is how the
  demo's own transcripts have it), the graves and acutes of Italian ("e'", "è"), and Russian ё.
* Languages written without spaces (Chinese, Japanese, Thai ...) are compared by characters, the others by words.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable

from catalogs.languages import text_units

_ACUTE, _GRAVE, _DIAERESIS, _TILDE = "\u0301", "\u0300", "\u0308", "\u0303"
_OPTIONAL_ACCENTS = {"es": _ACUTE + _DIAERESIS + _TILDE, "it": _ACUTE + _GRAVE, "ru": _DIAERESIS}
_NUMBER = re.compile(r"(\d+)(?:(st|nd|rd|th)\b)?")


def normalize(text: str, language: str) -> str:
    """Text as it is compared: lower case, no punctuation, numbers in words, no accents that are optional."""
    rules = _whisper_rules(language == "en")
    # The English rules write numbers as digits, whichever way they came: spelt out after them, they come out alike.
    plain = spell_numbers(rules(text), language) if language == "en" else rules(spell_numbers(text, language))
    if accents := _OPTIONAL_ACCENTS.get(language):
        decomposed = unicodedata.normalize("NFD", plain)
        plain = unicodedata.normalize("NFC", "".join(c for c in decomposed if c not in accents))
    # The English rules leave the points of "to ..." behind as a word.
    return " ".join(word for word in plain.split() if any(c.isalnum() for c in word))


def compared_units(text: str, language: str) -> list[str]:
    """The normalised words, or characters in languages without spaces: what an error rate counts."""
    return text_units(normalize(text, language), language)


def spell_numbers(text: str, language: str) -> str:
    """Whole numbers (and English ordinals) in words: "press 1" -> "press one", "1st" -> "first"."""
    from num2words import num2words

    def spell(match: re.Match[str]) -> str:
        kind = "ordinal" if match[2] and language == "en" else "cardinal"
        try:
            words = str(num2words(int(match[1]), lang=language, to=kind))
        except (NotImplementedError, OverflowError):
            return match[0]
        rest = "" if kind == "ordinal" else match[2] or ""
        return f" {words} {rest}".replace("-", " ").replace(",", " ")

    return _NUMBER.sub(spell, text)


@functools.cache
def _whisper_rules(english: bool) -> Callable[[str], str]:
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    if english:
        return EnglishTextNormalizer()
    return BasicTextNormalizer(preserve_marks=True)
