"""What is spoken: characters and syllables of a text, and a given transcript shared out over what was recognised."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher

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


def share_out(given: str, recognised: Sequence[str], unit: str = "word") -> list[str]:
    """A given transcript cut into one stretch for each recognised text, in order; together they are the whole of it.

    Both are compared as words (or as characters, unit "char") without case and punctuation. A border goes where the words
    around it match; between two places that match, in proportion.
    """
    pattern = r"\S+\s*" if unit == "word" else r"\S\s*"
    pieces = re.findall(pattern, given.strip())
    theirs = [_bare(piece) for piece in pieces]
    ours: list[str] = []
    borders = []
    for text in recognised:
        ours += [_bare(piece) for piece in re.findall(pattern, text)]
        borders.append(len(ours))
    blocks = SequenceMatcher(None, ours, theirs, autojunk=len(ours) > 20_000).get_matching_blocks()
    cuts = [0, *(_across(border, blocks, len(ours), len(theirs)) for border in borders[:-1]), len(pieces)]
    return ["".join(pieces[a:b]).strip() for a, b in itertools.pairwise(cuts)]


def _across(place: int, blocks: Sequence[tuple[int, int, int]], ours: int, theirs: int) -> int:
    """Where a place in our words lies in theirs."""
    a, b = 0, 0
    for our, their, size in [*blocks, (ours, theirs, 0)]:
        if place < our or (place == our and size == 0):
            share = (place - a) / (our - a) if our > a else 1.0
            return b + round(share * (their - b))
        if place <= our + size and size:
            return their + place - our
        a, b = our + size, their + size
    return theirs


def error_rate(text: str, wanted: str) -> float:
    """Character error rate without case, punctuation and spaces: edits over the characters wanted (1 if there are none)."""
    ours, theirs = _bare(text), _bare(wanted)
    if not theirs:
        return 0.0 if not ours else 1.0
    row = list(range(len(theirs) + 1))
    for i, letter in enumerate(ours, start=1):
        above, row[0] = row[0], i
        for j, other in enumerate(theirs, start=1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (letter != other))
    return row[-1] / len(theirs)


def _bare(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if unicodedata.category(c)[0] in "LNM")
