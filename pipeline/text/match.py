"""Whether a given transcript is what is said in a segment, and what of it can be used.

A recognizer's text alone cannot decide that: where it is weak in a language, a perfect transcript differs from it as much as
a wrong one does where it is strong. So the given text is also put before the recognizer word by word, once with the audio
and once with silence: by how much the audio makes a word likelier than the words before it do (its *gain*, in nats a token)
says whether the word is in the audio, whatever the recognizer would have written itself. Words that are there gain 2 to 10
nats in every language tried, words that are not about 0, in strong languages and in weak ones.
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

#: Runs of equal letters shorter than this are chance.
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
    """What makes a given transcript wrong; lengths in letters."""

    sure_cer: float = 0.05
    """Up to this error rate against the recognized text nothing else is asked."""
    least_gain: float = 1.5
    """Mean nats a token that a text must gain from the audio: right ones 2.5 and more, wrong ones 1.3 and less."""
    word_gain: float = 1.0
    """A run of words that gains less is not in the audio."""
    end_letters: int = 4
    """What is missing or too much at the head or the tail counts from here on."""
    middle_letters: int = 7
    """The same between two places that match: recognizers add and leave out short words there."""
    replaced_letters: int = 5
    """Other words in the place of those heard count from this length on, on both sides."""
    replaced_gain: float = 1.0
    """Such words that gain less are not in the audio."""
    heard_p: float = 0.5
    """Words that were recognized with less do not count against a transcript."""
    fallback_cer: float = 0.5
    """The error rate up to which a text is used where its gain cannot be measured."""


@dataclass(frozen=True)
class Match:
    """What came of a given transcript: the text to use, where it comes from, and why."""

    text: str
    source: Literal["given", "repaired", "asr"]
    cer: float
    gain: float | None = None
    """Mean nats a token; None where it was not asked for."""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Gap:
    """A stretch between two places that match, as letters of what was heard and of what was given."""

    heard: tuple[int, int]
    given: tuple[int, int]
    at_end: bool

    @property
    def excess(self) -> int:
        """Letters that were heard beyond those given; negative: given beyond those heard."""
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

    `support` is asked only where the two differ, and may answer None where it cannot tell. Words at the head or the tail of
    the given text that the audio does not hold are trimmed; words that were clearly heard and are not in it are put in
    (`source` "repaired"). What cannot be repaired gives way to the recognized text ("asr").
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
    # A third of it left: nothing tells that the rest is meant for this audio.
    if any(not gap.at_end for gap in extra) or 3 * kept.sum() < len(kept) or (extra and missing):
        return rejected
    # More of it would be the recognizer's than the person's.
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
    """The stretches between places where at least three letters (two characters) match."""
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
    """Whether a gap is long enough to matter; a number in digits on one side alone has any length."""
    heard, given = ours.letters[slice(*gap.heard)], theirs.letters[slice(*gap.given)]
    for digits, letters in ((heard, given), (given, heard)):
        if digits.isdigit() and letters.isalpha() and len(letters) <= _LETTERS_A_DIGIT * (len(digits) + 1):
            return False
    least = rules.end_letters if gap.at_end else rules.middle_letters
    replaced = min(len(heard), len(given)) >= rules.replaced_letters / scale
    return replaced or abs(gap.excess) >= max(least / scale, 2)


def _is_unsaid(gap: _Gap, gains: np.ndarray, rules: MatchRules) -> bool:
    """Whether the given words of a gap are not in the audio."""
    if gap.given[0] == gap.given[1]:
        return False
    return float(gains[slice(*gap.given)].mean()) < (rules.word_gain if gap.excess < 0 else rules.replaced_gain)


def _was_heard(gap: _Gap, ours: Letters, words: Sequence[Word], rules: MatchRules) -> bool:
    """Whether the words of a gap were recognized with enough probability to be believed."""
    inside = ours.within(gap.heard)
    return bool(inside) and float(np.mean([words[i].p if words else 1.0 for i in inside])) >= rules.heard_p


def _letter_gains(found: Sequence[WordSupport], count: int, language: str | None) -> np.ndarray:
    """float [count]: the gain of each letter of the given text, in nats a token of its word."""
    letters = [len(comparable(word.word, language).replace(" ", "")) for word in found]
    gains = np.repeat([word.gain / max(word.tokens, 1) for word in found], letters)
    if len(gains) == count:
        return gains
    # The recognizer's words are cut elsewhere (it splits within a letter): as near as they come.
    return np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(gains)), gains) if len(gains) else np.zeros(count)


def _total(found: Sequence[WordSupport]) -> float:
    return sum(word.gain for word in found) / max(sum(word.tokens for word in found), 1)


def _put_in(ours: Letters, theirs: Letters, missing: Sequence[_Gap], heard: str) -> str:
    """The given text with the words that were heard in its gaps instead of those it has there."""
    before: dict[int, list[str]] = {}
    dropped: set[int] = set()
    for gap in missing:
        dropped.update(theirs.within(gap.given))
        place = int(theirs.owner[gap.given[0]]) if gap.given[0] < len(theirs.owner) else len(theirs.pieces)
        if place in dropped or (
            gap.given[0] and place < len(theirs.pieces) and theirs.owner[gap.given[0] - 1] == place
        ):
            # In the middle of a word that stays: what was heard comes after it.
            place += place not in dropped
        before.setdefault(place, []).extend(ours.pieces[i].strip() for i in ours.within(gap.heard))
    spaced = any(piece != piece.rstrip() for piece in theirs.pieces) or " " in heard.strip()
    parts: list[str] = []
    for index in range(len(theirs.pieces) + 1):
        parts += before.get(index, [])
        if index < len(theirs.pieces) and index not in dropped:
            parts.append(theirs.pieces[index].strip())
    return (" " if spaced else "").join(parts)
