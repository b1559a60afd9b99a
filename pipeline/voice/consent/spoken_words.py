"""Whether a transcript is the sentence that was asked for: the whole of it roughly, its random words nearly exactly."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from catalogs.vocabulary.comparable_text import normalize
from pipeline.text.compare import error_rate

MOST_CER = 0.25
"""Character error rate up to which a transcript is the sentence: recognizers misspell names, and whisper-base has 6 to 16 % in
some languages."""
MOST_MISSING = 1
"""Random words that may be missing: recognizers mishear one."""
_LETTERS_PER_ERROR = 4
"""Letters of a random word for each that may be wrong."""


@dataclass(frozen=True)
class Spoken:
    """How a transcript compares with a sentence."""

    cer: float
    missing: tuple[str, ...]  #: random words that were not found in their order


def compare_sentence(transcript: str, sentence: str, words: Sequence[str], language: str) -> Spoken:
    """Compare a transcript with a sentence and its random words.

    Case, punctuation and accents do not count as far as a language allows. Numbers are compared as words, so that "30" and
    "thirty" are equal.
    """
    heard, wanted = normalize(transcript, language), normalize(sentence, language)
    return Spoken(error_rate(heard, wanted, language), missing_words(transcript, words, language))


def missing_words(transcript: str, words: Sequence[str], language: str) -> tuple[str, ...]:
    """Return the fewest words without which the others stand in the transcript in their order."""
    heard = _letters(transcript, language)
    # Best of (words found, where the last one ends) over the words so far: for each number found, the earliest end.
    ends: dict[tuple[int, ...], int] = {(): 0}
    for index, word in enumerate(words):
        letters = _letters(word, language)
        for found, end in list(ends.items()):
            place = _find(letters, heard, end)
            if place is not None:
                ends[(*found, index)] = place
    best = max(ends, key=len)
    return tuple(word for index, word in enumerate(words) if index not in best)


def _letters(text: str, language: str) -> str:
    """Return the compared letters without spaces. Syllables of Korean are taken apart, and accents are letters."""
    return unicodedata.normalize("NFD", normalize(text, language)).replace(" ", "")


def _find(word: str, text: str, start: int) -> int | None:
    """Return the end of the first place from `start` on that differs from a word by one letter in four at most."""
    if not word:
        return None
    most = len(word) // _LETTERS_PER_ERROR
    # Sellers' algorithm: the word may begin anywhere, so the first row is 0.
    column = list(range(len(word) + 1))
    for place in range(start, len(text)):
        earlier, column[0] = column[0], 0
        for row, letter in enumerate(word, 1):
            change = earlier + (letter != text[place])
            earlier = column[row]
            column[row] = min(change, earlier + 1, column[row - 1] + 1)
        if column[-1] <= most:
            return place + 1
    return None
