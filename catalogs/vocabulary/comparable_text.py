"""Text normalization for error rates, applied to reference and hypothesis alike: the dialect `clean` of evaluation.

* English: `whisper-normalizer`'s English rules (case, punctuation, contractions, spelling variants). Other languages: its basic
  rules (case, punctuation, remarks in brackets), but the marks of Brahmic scripts stay.
* Numbers: recognizers write "1" for the "one" of a transcript. In English both become digits by the English rules ("one two" and
  "1, 2" are "12", "first" is "1st"). In other languages digits are spelled out: Chinese by our own rules, the others with
  num2words. They stay digits if it does not know the language (el, hi, km, lo, ms, my, sw, tl).
* Accents that transcripts of a language use inconsistently are removed: all accents of Spanish (the demo's transcripts have
  "grabacion"), the graves and acutes of Italian ("e'", "è"), and Russian ё.
* Optional marks are removed: Arabic vowel signs and tatweel, Hebrew points. Forms of alef and hamza are one letter; ta marbuta
  stays. Turkish has two letters i, with their own capitals.
* Chinese becomes simplified if OpenCC is installed; otherwise it stays as it is written. 两 and 〇 are 二 and 零.
* Invisible characters are removed, and in scripts without spaces between words the spaces as well.
* Languages written without spaces (Chinese, Japanese, Thai ...) are compared by characters, the others by words.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable

from catalogs.vocabulary.chinese_numbers import spell_chinese, spell_digits
from catalogs.vocabulary.languages import is_chinese, text_units
from catalogs.vocabulary.languages import language as known_language

VERSION = 2
"""Raised when the result changes for any text. Stored figures are computed again then."""

_LIBRARIES = ("whisper-normalizer", "num2words", "opencc")

_ACUTE, _GRAVE, _DIAERESIS, _TILDE = "\u0301", "\u0300", "\u0308", "\u0303"
_OPTIONAL_ACCENTS = {"es": _ACUTE + _DIAERESIS + _TILDE, "it": _ACUTE + _GRAVE, "ru": _DIAERESIS}
#: A whole number by itself. The English rules handle amounts, times, decimals and ordinals.
_LONE_NUMBER = re.compile(r"(?<!\S)\d+(?=[.,;:!?]*(?:\s|$))")
_NUMBER = re.compile(r"\d+")
#: Years are read digit by digit in Chinese.
_YEAR = re.compile(r"(?<!\d)\d{4}(?=年)")
#: Soft hyphen, zero-width spaces and joiners, marks of direction, byte order mark.
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
#: Arabic tatweel, vowel signs and Quranic marks; Hebrew vowel points and accents (maqaf and other punctuation are not marks).
_OPTIONAL_MARKS = {
    "ar": re.compile("[\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed]"),
    "he": re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]"),
}
_SAME_LETTERS = {
    "ar": {**dict.fromkeys(map(ord, "أإآٱ"), "ا"), **dict.fromkeys(map(ord, "ىئ"), "ي"), ord("ؤ"): "و"},
    # The English rules know contractions with a straight apostrophe only.
    "en": dict.fromkeys(map(ord, "‘’ʼ"), "'"),
    "tr": {ord("I"): "ı", ord("İ"): "i"},
    "zh": {ord("两"): "二", ord("〇"): "零"},
}
#: Scripts without spaces between words. Korean has them, though its error rates count characters.
_UNSPACED_SCRIPTS = frozenset({"Hani", "Jpan", "Thai", "Laoo", "Khmr", "Mymr"})


def normalize(text: str, language: str) -> str:
    """Return text for comparison: lower case, without punctuation and optional accents, with numbers in one form."""
    code = _base_code(language)
    text = simplified(_INVISIBLE.sub("", unicodedata.normalize("NFKC", text)), language)
    if code in _SAME_LETTERS:
        text = text.translate(_SAME_LETTERS[code])
    if code in _OPTIONAL_MARKS:
        text = _OPTIONAL_MARKS[code].sub("", text)
    if code == "zh":
        text = _YEAR.sub(lambda year: spell_digits(_ascii(year[0])), text)
    # Also before the English rules: they turn "one two" into "12", but would leave "1, 2" unchanged.
    spelt = (_LONE_NUMBER if code == "en" else _NUMBER).sub(lambda number: _spell(number[0], code), text)
    plain = _whisper_rules(code == "en")(spelt)
    if accents := _OPTIONAL_ACCENTS.get(code):
        decomposed = unicodedata.normalize("NFD", plain)
        plain = "".join(c for c in decomposed if c not in accents)
    # The English rules leave the dots of "to ..." as a word.
    words = [word for word in unicodedata.normalize("NFC", plain).split() if any(c.isalnum() for c in word)]
    # Composed again: without the space before it, a mark belongs to the letter before.
    return unicodedata.normalize("NFC", ("" if is_unspaced(language) else " ").join(words))


def compared_units(text: str, language: str) -> list[str]:
    """Return the units of an error rate: the normalized words, or characters in languages without spaces."""
    return text_units(normalize(text, language), language)


def is_unspaced(language: str) -> bool:
    """Return True if a language is written without spaces between words."""
    known = known_language(language)
    return known is not None and known.script in _UNSPACED_SCRIPTS


def simplified(text: str, language: str) -> str:
    """Return Chinese text in simplified characters, without other words; other text, or any without OpenCC, as it is."""
    convert = _converter() if is_chinese(language) else None
    return convert(text) if convert else text


def rules_in_use() -> dict[str, str | int]:
    """Return what decides the result of `normalize` on this machine: the rules' version and those of the libraries."""
    return {"rules": VERSION, **{package: _installed(package) for package in _LIBRARIES}}


def _base_code(language: str) -> str:
    """Return the code without its region (`en-US`, `es-419`); `zh` for a Chinese dialect."""
    known = known_language(language)
    return known.code if known else language


def _spell(digits: str, language: str) -> str:
    """Return a whole number in words, with spaces around it; digit by digit if it starts with 0, as it would be spoken."""
    from num2words import num2words

    digits = _ascii(digits)
    if language == "zh":
        return spell_chinese(digits)
    numbers = list(digits) if digits.startswith("0") else [digits]
    try:
        words = " ".join(num2words(int(number), lang=language) for number in numbers)
    # Very long numbers: each language of the library fails in its own way.
    except (NotImplementedError, OverflowError, LookupError, ValueError):
        return digits
    return f" {words} ".replace("-", " ").replace(",", " ")


def _ascii(digits: str) -> str:
    """Return digits of any script as 0 to 9."""
    return "".join(str(unicodedata.digit(digit)) for digit in digits)


@functools.cache
def _whisper_rules(english: bool) -> Callable[[str], str]:
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    if english:
        return EnglishTextNormalizer()
    return BasicTextNormalizer(preserve_marks=True)


def _installed(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


@functools.cache
def _converter() -> Callable[[str], str] | None:
    try:
        from opencc import OpenCC
    except ModuleNotFoundError:
        return None
    converter = OpenCC("t2s")
    return lambda text: str(converter.convert(text))
