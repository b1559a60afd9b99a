"""Compare the words of two texts: differences that do not count in a language are removed, and error rates measure the
rest."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher

import numpy as np

from catalogs.vocabulary.languages import language as known_language
from catalogs.vocabulary.languages import text_units

# Optional marks: Arabic and Hebrew vowel points, tatweel.
_POINTS = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed]"
)
_ONE_LETTER = str.maketrans("أإآٱىةؤئё", "اااايهوىе") | {ord("ß"): "ss", ord("œ"): "oe", ord("æ"): "ae", ord("ı"): "i"}
_COMBINING = re.compile("[\u0300-\u036f]")
#: Languages whose accents are often left out in careless writing, without doubt about the word's sound.
_LOOSE_ACCENTS = frozenset({"es", "it", "fr", "pt", "el", "vi", "tr"})
_MOST_WORDS_A_NUMBER = 8


def comparable(text: str, language: str | None = None) -> str:
    """Return the text in lower case, without punctuation and without what a writer of the language may leave out.

    Spelling stays: this is for comparing, never for training. Vowel points of Arabic and Hebrew, forms of alef and ё are
    reduced for every language, accents if the language is one of those whose accents are often left out.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    text = _POINTS.sub("", text).translate(_ONE_LETTER)
    known = known_language(language)
    if known and known.code in _LOOSE_ACCENTS:
        text = unicodedata.normalize("NFC", _COMBINING.sub("", unicodedata.normalize("NFD", text)))
    # An apostrophe joins ("don't"), a hyphen separates ("peut-être"): recognizers and transcribers differ most in hyphens.
    text = re.sub(r"(?<=\w)['’ʼ`´](?=\w)", "", text)
    return " ".join("".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in text).split())


def error_rate(text: str, wanted: str, language: str | None = None) -> float:
    """Return the character error rate: edits over the characters wanted, without spaces (1 if nothing was wanted but
    something is there).

    A number in digits does not differ from words in the same place: digits do not show which words were spoken.
    """
    ours, theirs = _without_numbers(comparable(text, language).split(), comparable(wanted, language).split())
    return _rate("".join(ours), "".join(theirs))


def word_error_rate(text: str, wanted: str, language: str | None = None) -> float:
    """Return edits over the words wanted; over the characters in languages that are written without spaces."""
    ours, theirs = (text_units(comparable(one, language), language) for one in (text, wanted))
    return _rate(*_without_numbers(ours, theirs))


def _rate(ours: Sequence[str], theirs: Sequence[str]) -> float:
    if not theirs:
        return 1.0 if ours else 0.0
    return edit_distance(ours, theirs) / len(theirs)


def edit_distance(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Return the fewest insertions, deletions and replacements that turn one sequence into the other."""
    return int(prefix_distances(ours, theirs)[-1])


def prefix_distances(ours: Sequence[str], theirs: Sequence[str]) -> np.ndarray:
    """Return the edit distance of one sequence to every beginning of the other: int64 [len(theirs) + 1]."""
    numbers: dict[str, int] = {}
    a = np.array([numbers.setdefault(item, len(numbers)) for item in ours])
    b = np.array([numbers.setdefault(item, len(numbers)) for item in theirs])
    places = np.arange(len(b) + 1)
    row = places.copy()
    for i, item in enumerate(a, start=1):
        best = np.minimum(row[1:] + 1, row[:-1] + (b != item))
        # Insertions run along the row: the minimum over all ways to come here from the left, at a cost of one per step.
        row = np.minimum.accumulate(np.concatenate([[i], best]) - places) + places
    return row


def _without_numbers(ours: list[str], theirs: list[str]) -> tuple[list[str], list[str]]:
    """Return both without the places where one has digits and the other a few words instead."""
    if not any(c.isdigit() for word in (*ours, *theirs) for c in word):
        return ours, theirs
    kept: tuple[list[str], list[str]] = ([], [])
    for kind, a, b, c, d in SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        mine, yours = ours[a:b], theirs[c:d]
        if kind == "replace" and _is_number_and_words(mine, yours):
            continue
        kept[0].extend(mine)
        kept[1].extend(yours)
    return kept


def _is_number_and_words(mine: list[str], yours: list[str]) -> bool:
    digits = [sum(any(c.isdigit() for c in word) for word in words) for words in (mine, yours)]
    if (digits[0] > 0) == (digits[1] > 0):
        return False
    few, many = (mine, yours) if digits[0] else (yours, mine)
    letters = sum(c.isdigit() for word in few for c in word)
    return len(few) == max(digits) and len(many) <= min(_MOST_WORDS_A_NUMBER * len(few), 3 * letters + 1)
