"""Decide whether a given transcript is what is said in a segment, and which parts of it can be used.

The text of a recognizer cannot decide that alone. In a language where it is weak, a perfect transcript differs from its
text as much as a wrong one does where it is strong. So the recognizer also scores the given text word by word, once with
the audio and once with silence. The *gain* of a word, in nats per token, is by how much the audio raises its likelihood
above that from the preceding words. It shows whether the word is in the audio, whatever the recognizer would have written
itself. Words that are there gain 2 to 10 nats in every language tried, weak or strong; words that are not gain about 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

import numpy as np

from catalogs.vocabulary.languages import text_unit
from pipeline.records import Word
from pipeline.text.compare import comparable, error_rate
from pipeline.text.letters import Letters, split_pieces

#: Runs of equal letters shorter than this are due to chance.
_ANCHOR = 3
_LETTERS_A_DIGIT = 7


@dataclass(frozen=True)
class WordSupport:
    """How much the audio supports one word of a text: `gain` in nats over all of its tokens."""

    word: str
    gain: float
    tokens: int


@dataclass(frozen=True)
class MatchRules:
    """The rules for rejecting a given transcript; lengths in letters."""

    sure_cer: float = 0.05
    """Up to this error rate against the recognized text, nothing else is tested."""
    least_gain: float = 1.5
    """Mean nats per token that a text must gain from the audio: correct ones gain 2.5 and more, wrong ones 1.3 and less."""
    word_gain: float = 1.0
    """A run of words that gains less is not in the audio."""
    end_letters: int = 4
    """Minimum number of missing or extra letters at the head or the tail that counts."""
    middle_letters: int = 7
    """The same between two places that match, where recognizers add and leave out short words."""
    replaced_letters: int = 5
    """Minimum length on both sides for words that replace recognized ones to count."""
    replaced_gain: float = 1.0
    """Such words are not in the audio if they gain less."""
    heard_p: float = 0.5
    """Words that were recognized with a lower probability do not count against a transcript."""
    fallback_cer: float = 0.5
    """Maximum error rate at which a text is used if its gain cannot be measured."""


@dataclass(frozen=True)
class Match:
    """The result for a given transcript: the text to use, its origin, and why."""

    text: str
    source: Literal["given", "repaired", "asr"]
    cer: float
    gain: float | None = None
    """Mean nats per token; None if it was not measured."""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Gap:
    """A stretch between two places that match, as letters of the recognized and of the given text."""

    heard: tuple[int, int]
    given: tuple[int, int]
    at_end: bool

    @property
    def excess(self) -> int:
        """Recognized letters minus given letters; negative if more were given."""
        return (self.heard[1] - self.heard[0]) - (self.given[1] - self.given[0])


def judge(
    given: str,
    heard: str,
    words: Sequence[Word],
    language: str | None,
    support: Callable[[str], list[WordSupport] | None],
    rules: MatchRules | None = None,
) -> Match:
    """Decide between a given text and the recognized one (`heard`, with its `words`).

    `support` is called only if the two differ, and may return None if it cannot measure. Words at the head or the tail of
    the given text that are not in the audio are trimmed. Words that were clearly recognized and are missing from it are
    inserted (`source` "repaired"). If the given text cannot be repaired, the recognized text is used ("asr").
    """
    rules = rules or MatchRules()
    cer = error_rate(heard, given, language)
    ours = Letters([word.word for word in words] or [heard], language)
    theirs = Letters(split_pieces(given, language), language)
    if not theirs.letters:
        return Match(heard, "asr", cer)
    scale = 2.5 if text_unit(language, given) == "char" else 1.0
    gaps = [gap for gap in _gaps(ours.letters, theirs.letters, scale) if _counts(gap, ours, theirs, rules, scale)]
    digits = any(c.isdigit() for c in ours.letters) != any(c.isdigit() for c in theirs.letters)
    if cer <= rules.sure_cer and not gaps and not digits:
        return Match(given, "given", cer)
    found = support(given)
    if found is None:
        fits = cer <= rules.fallback_cer and not gaps
        return Match(given, "given", cer) if fits else Match(heard, "asr", cer, flags=("given_rejected",))
    gains = _letter_gains(found, len(theirs.letters), language)
    gain = _total(found)
    extra = [gap for gap in gaps if _is_unsaid(gap, gains, rules)]
    missing = [gap for gap in gaps if gap.excess > 0 and _was_heard(gap, ours, words, rules)]
    dropped = {piece for gap in extra for piece in theirs.within(gap.given)}
    kept = np.array([owner not in dropped for owner in theirs.owner])
    rejected = Match(heard, "asr", cer, gain, ("given_rejected",))
    # With less than a third left, nothing shows that the rest belongs to this audio.
    if any(not gap.at_end for gap in extra) or 3 * kept.sum() < len(kept) or (extra and missing):
        return rejected
    # More of the text would come from the recognizer than from the given transcript.
    if sum(gap.excess for gap in missing) > len(theirs.letters):
        return rejected
    if (float(gains[kept].mean()) if extra else gain) < rules.least_gain:
        return rejected
    if extra:
        text = "".join(piece for i, piece in enumerate(theirs.pieces) if i not in dropped).strip()
        return Match(text, "repaired", cer, gain, ("given_trimmed",))
    if missing:
        return Match(_put_in(ours, theirs, missing, heard), "repaired", cer, gain, ("given_completed",))
    return Match(given, "given", cer, gain)


def _gaps(heard: str, given: str, scale: float) -> list[_Gap]:
    """Return the stretches between places where at least three letters (two characters) match."""
    least = max(round(_ANCHOR / scale), 2)
    matcher = SequenceMatcher(None, heard, given, autojunk=False)
    gaps, i, j = [], 0, 0
    for block in matcher.get_matching_blocks():
        last = block.size == 0
        if block.size < least and not last:
            continue
        gap = _Gap((i, block.a), (j, block.b), at_end=not (i or j) or last)
        if gap.heard[0] < gap.heard[1] or gap.given[0] < gap.given[1]:
            gaps.append(gap)
        i, j = block.a + block.size, block.b + block.size
    return gaps


def _counts(gap: _Gap, ours: Letters, theirs: Letters, rules: MatchRules, scale: float) -> bool:
    """Return True if a gap is long enough to matter; a number in digits on one side alone may have any length."""
    heard, given = ours.letters[slice(*gap.heard)], theirs.letters[slice(*gap.given)]
    for digits, letters in ((heard, given), (given, heard)):
        if digits.isdigit() and letters.isalpha() and len(letters) <= _LETTERS_A_DIGIT * (len(digits) + 1):
            return False
    least = rules.end_letters if gap.at_end else rules.middle_letters
    replaced = min(len(heard), len(given)) >= rules.replaced_letters / scale
    return replaced or abs(gap.excess) >= max(least / scale, 2)


def _is_unsaid(gap: _Gap, gains: np.ndarray, rules: MatchRules) -> bool:
    """Return True if the given words of a gap are not in the audio."""
    if gap.given[0] == gap.given[1]:
        return False
    return float(gains[slice(*gap.given)].mean()) < (rules.word_gain if gap.excess < 0 else rules.replaced_gain)


def _was_heard(gap: _Gap, ours: Letters, words: Sequence[Word], rules: MatchRules) -> bool:
    """Return True if the words of a gap were recognized with sufficient probability."""
    inside = ours.within(gap.heard)
    return bool(inside) and float(np.mean([words[i].p if words else 1.0 for i in inside])) >= rules.heard_p


def _letter_gains(found: Sequence[WordSupport], count: int, language: str | None) -> np.ndarray:
    """Return float [count]: the gain of each letter of the given text, in nats per token of its word."""
    letters = [len(comparable(word.word, language).replace(" ", "")) for word in found]
    gains = np.repeat([word.gain / max(word.tokens, 1) for word in found], letters)
    if len(gains) == count:
        return gains
    # The recognizer splits words at other places (even within a letter): the gains are interpolated.
    return np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(gains)), gains) if len(gains) else np.zeros(count)


def _total(found: Sequence[WordSupport]) -> float:
    return sum(word.gain for word in found) / max(sum(word.tokens for word in found), 1)


def _put_in(ours: Letters, theirs: Letters, missing: Sequence[_Gap], heard: str) -> str:
    """Return the given text with the words that were recognized in its gaps instead of those that it has there."""
    before: dict[int, list[str]] = {}
    dropped: set[int] = set()
    for gap in missing:
        dropped.update(theirs.within(gap.given))
        place = int(theirs.owner[gap.given[0]]) if gap.given[0] < len(theirs.owner) else len(theirs.pieces)
        if place in dropped or (
            gap.given[0] and place < len(theirs.pieces) and theirs.owner[gap.given[0] - 1] == place
        ):
            # In the middle of a word that stays: the recognized words come after it.
            place += place not in dropped
        before.setdefault(place, []).extend(ours.pieces[i].strip() for i in ours.within(gap.heard))
    spaced = any(piece != piece.rstrip() for piece in theirs.pieces) or " " in heard.strip()
    parts: list[str] = []
    for index in range(len(theirs.pieces) + 1):
        parts += before.get(index, [])
        if index < len(theirs.pieces) and index not in dropped:
            parts.append(theirs.pieces[index].strip())
    return (" " if spaced else "").join(parts)
