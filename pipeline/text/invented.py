"""Signs that a recognizer invented its text: loops, sentences it knows from subtitles, and impossible rates of speech.

Each sign has a name, which becomes a flag of the segment; none of them deletes anything. Measures with a separate column
(compression ratio, no-speech probability, log probability) are judged by the thresholds.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from catalogs.vocabulary.languages import language as known_language
from catalogs.vocabulary.languages import text_unit
from pipeline.text.compare import comparable
from pipeline.text.counts import rate_is_unusual
from pipeline.text.stock_phrases import CREDIT_OPENINGS, CREDITS, FAREWELLS

#: (Length of a run in words or characters, how often it may occur in a row): people do say "no, no, no, no" and "ha ha ha".
_REPEATS = {"word": ((1, 6), (2, 4), (4, 3), (12, 2)), "char": ((1, 9), (2, 6), (4, 4), (7, 3), (20, 2))}
#: "aaaaaaaaaaaaa": up to four letters that are repeated at least eleven times without a space.
_WITHIN_A_WORD = re.compile(r"([^\W\d]{1,4}?)\1{11,}")
_DOUBTFUL_NO_SPEECH, _DOUBTFUL_LOGPROB = 0.3, -0.7


def signs_of_invention(
    text: str,
    language: str | None,
    spoken_s: float,
    logprob: float | None = None,
    no_speech_p: float | None = None,
) -> list[str]:
    """Return the flags of a recognized text: `looping_text`, `stock_phrase`, `unusual_rate`; none for a text without words."""
    plain = comparable(text, language)
    if not plain:
        return []
    doubtful = (no_speech_p or 0.0) > _DOUBTFUL_NO_SPEECH or (logprob is not None and logprob < _DOUBTFUL_LOGPROB)
    signs = {
        "looping_text": loops(text, language),
        "stock_phrase": is_credit(plain, language)
        or (doubtful and (is_farewell(plain, language) or opens_as_credit(plain, language))),
        "unusual_rate": rate_is_unusual(text, spoken_s, language),
    }
    return [name for name, found in signs.items() if found]


def loops(text: str, language: str | None = None) -> bool:
    """Return True if a run of words (characters, if words are not separated) is repeated more often than people repeat.

    The limits: 7 times one word, 5 times two or three, 4 times four to eleven, 3 times twelve or more. Digits are exempt:
    "0 0 0 0 0 0 0" is a number.
    """
    unit = text_unit(language, text)
    plain = comparable(text, language)
    if _WITHIN_A_WORD.search(plain):
        return True
    units = plain.split() if unit == "word" else list(plain.replace(" ", ""))
    for length in range(1, len(units) // 3 + 1):
        allowed = next(times for least, times in reversed(_REPEATS[unit]) if length >= least)
        if _most_repeats(units, length) > allowed:
            return True
    return False


def _most_repeats(units: Sequence[str], length: int) -> int:
    """Return the highest number of times in a row that a run of `length` units occurs; runs of digits alone are not
    counted."""
    most = run = 0
    for index in range(length, len(units)):
        # A digit never continues a run: numbers may repeat.
        run = run + 1 if units[index] == units[index - length] and not units[index].isdigit() else 0
        most = max(most, run)
    return most // length + 1


def is_credit(plain: str, language: str | None) -> bool:
    """Return True if a comparable text names a subtitler, in the list of its language or of all languages."""
    code = _code(language)
    return any(phrase in f" {plain} " for key in ("*", code) for phrase in _phrases("credits", key, code))


def opens_as_credit(plain: str, language: str | None) -> bool:
    """Return True if a comparable text begins as credits of subtitles do."""
    code = _code(language)
    return f" {plain} ".startswith(_phrases("openings", code, code))


def is_farewell(plain: str, language: str | None) -> bool:
    """Return True if a comparable text is only a sentence that videos end with, once or several times."""
    code = _code(language)
    phrases = _phrases("farewells", code, code)
    return any(plain.replace(phrase, "").strip() == "" for phrase in phrases if phrase in plain)


def _code(language: str | None) -> str:
    known = known_language(language)
    return known.code if known else ""


_LISTS = {"credits": CREDITS, "openings": CREDIT_OPENINGS, "farewells": FAREWELLS}


@functools.cache
def _phrases(kind: str, key: str, code: str) -> tuple[str, ...]:
    """Return the phrases of a list in the form of `comparable` for a language. Credits and openings match only at the start
    of a word."""
    plain = (comparable(phrase, code) for phrase in _LISTS[kind].get(key, ()))
    if kind == "farewells":
        return tuple(plain)
    return tuple(f" {phrase}" if kind == "openings" or phrase.isascii() else phrase for phrase in plain)
