"""Text normalization for error rates, applied to reference and hypothesis alike.

* English: `whisper-normalizer`'s English rules (case, punctuation, contractions, spelling variants). Other languages: its basic
  rules (case, punctuation, remarks in brackets), but the marks of Brahmic scripts stay.
* Numbers: recognizers write "1" for the "one" of a transcript. In English both become digits by the English rules ("one two" and
  "1, 2" are "12", "first" is "1st"). In other languages digits are spelled out with num2words; they stay if it does not know the
  language.
* Accents that transcripts of a language use inconsistently are removed: all accents of Spanish (the demo's transcripts have
  "grabacion"), the graves and acutes of Italian ("e'", "è"), and Russian ё.
* Languages written without spaces (Chinese, Japanese, Thai ...) are compared by characters, the others by words.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable

from catalogs.vocabulary.languages import text_units

_ACUTE, _GRAVE, _DIAERESIS, _TILDE = "\u0301", "\u0300", "\u0308", "\u0303"
_OPTIONAL_ACCENTS = {"es": _ACUTE + _DIAERESIS + _TILDE, "it": _ACUTE + _GRAVE, "ru": _DIAERESIS}
#: A whole number by itself. The English rules handle amounts, times, decimals and ordinals.
_LONE_NUMBER = re.compile(r"(?<!\S)\d+(?=[.,;:!?]*(?:\s|$))")
_NUMBER = re.compile(r"\d+")


def normalize(text: str, language: str) -> str:
    """Return text for comparison: lower case, without punctuation and optional accents, with numbers in one form."""
    text = unicodedata.normalize("NFKC", text)
    # Also before the English rules: they turn "one two" into "12", but would leave "1, 2" unchanged.
    spelt = (_LONE_NUMBER if language == "en" else _NUMBER).sub(lambda number: _spell(number[0], language), text)
    plain = _whisper_rules(language == "en")(spelt)
    if accents := _OPTIONAL_ACCENTS.get(language):
        decomposed = unicodedata.normalize("NFD", plain)
        plain = unicodedata.normalize("NFC", "".join(c for c in decomposed if c not in accents))
    # The English rules leave the dots of "to ..." as a word.
    return " ".join(word for word in plain.split() if any(c.isalnum() for c in word))


def compared_units(text: str, language: str) -> list[str]:
    """Return the units of an error rate: the normalized words, or characters in languages without spaces."""
    return text_units(normalize(text, language), language)


def _spell(digits: str, language: str) -> str:
    """Return a whole number in words, with spaces around it; digit by digit if it starts with 0, as it would be spoken."""
    from num2words import num2words

    numbers = list(digits) if digits.startswith("0") else [digits]
    try:
        words = " ".join(num2words(int(number), lang=language) for number in numbers)
    except (NotImplementedError, OverflowError):
        return digits
    return f" {words} ".replace("-", " ").replace(",", " ")


@functools.cache
def _whisper_rules(english: bool) -> Callable[[str], str]:
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    if english:
        return EnglishTextNormalizer()
    return BasicTextNormalizer(preserve_marks=True)
