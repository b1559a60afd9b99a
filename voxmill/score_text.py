"""What two transcripts must share to count as the same words: the text rules of the error rates.

Both sides go through them alike, those of the pipeline and those of the recognizer alone:

* English: `whisper-normalizer`'s English rules (case, punctuation, contractions, spelling variants); other languages its basic
  rules (case, punctuation, remarks in brackets), with the marks of Brahmic scripts kept.
* Numbers: recognizers write "1" where a transcript says "one". In English both become digits by the English rules ("one two"
  and "1, 2" are "12", "first" is "1st"); in other languages digits are spelled out with num2words, and stay if it does not
  know the language.
* Accents that a language's transcripts write or leave out at will are taken away: all of Spanish ("grabacion" is how the
  demo's own transcripts have it), the graves and acutes of Italian ("e'", "è"), and Russian ё.
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
#: A whole number that stands alone: amounts, times, decimals and ordinals are left to the English rules.
_LONE_NUMBER = re.compile(r"(?<!\S)\d+(?=[.,;:!?]*(?:\s|$))")
_NUMBER = re.compile(r"\d+")


def normalize(text: str, language: str) -> str:
    """Text as it is compared: lower case, no punctuation, numbers alike, no accents that are optional."""
    text = unicodedata.normalize("NFKC", text)
    # Before the English rules too: they join "one two" to "12", but would leave "1, 2" as they are.
    spelt = (_LONE_NUMBER if language == "en" else _NUMBER).sub(lambda number: _spell(number[0], language), text)
    plain = _whisper_rules(language == "en")(spelt)
    if accents := _OPTIONAL_ACCENTS.get(language):
        decomposed = unicodedata.normalize("NFD", plain)
        plain = unicodedata.normalize("NFC", "".join(c for c in decomposed if c not in accents))
    # The English rules leave the points of "to ..." behind as a word.
    return " ".join(word for word in plain.split() if any(c.isalnum() for c in word))


def compared_units(text: str, language: str) -> list[str]:
    """The normalized words, or characters in languages without spaces: what an error rate counts."""
    return text_units(normalize(text, language), language)


def _spell(digits: str, language: str) -> str:
    """A whole number in words, with spaces around; digit by digit where it starts with 0, as nobody says it otherwise."""
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
