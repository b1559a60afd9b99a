"""Which sentences are held out: chosen by a hash of their words, before anything is made, with every near copy.

A held-out sentence is judged and never heard. A prompt of other words that says nearly the same is neither: it is left out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.text.compare import edit_distance

LEAST_WORDS = 3
"""Words of a held-out sentence at least: single words are heard in training, in other sentences."""
SECONDS = (1.2, 8.0)
"""Length of a held-out recording."""
WORD_EDITS = 0.25
"""Sentences are near copies up to this many edits of words, as a share of the longer one's words."""
LETTER_EDITS = 0.2
"""The same for letters: inflected forms, other spellings."""
SHARED_WORDS = 0.8
"""The same for distinct words that both have, as a share of those that either has: another order."""


@dataclass(frozen=True)
class Prompt:
    """A recording of one sentence. `words` is the normalized text, one space between words; `seconds` of audio."""

    name: str
    language: str
    speaker: str
    text: str
    words: str
    seconds: float


@dataclass(frozen=True)
class Split:
    """The prompts in three parts that have none in common."""

    training: tuple[Prompt, ...]
    held_out: tuple[Prompt, ...]
    near_copies: tuple[Prompt, ...]
    """Prompts that are neither trained on nor judged."""


def split(prompts: Sequence[Prompt], per_language: int, seed: int = 1) -> Split:
    """Hold out sentences by language: those with the smallest hashes among the sentences that may be judged.

    Of a sentence with several recordings the first by name is judged; the others are left out as copies.
    """
    held: dict[tuple[str, str], Prompt] = {}
    for language in sorted({prompt.language for prompt in prompts}):
        judged: dict[str, Prompt] = {}
        for prompt in sorted(prompts, key=lambda prompt: prompt.name):
            if prompt.language == language and may_be_judged(prompt):
                judged.setdefault(prompt.words, prompt)
        chosen = sorted(judged, key=lambda words: _draw(seed, language, words))[:per_language]
        held |= {(language, words): judged[words] for words in chosen}
    training: list[Prompt] = []
    copies: list[Prompt] = []
    taken = {(prompt.language, prompt.name) for prompt in held.values()}
    for prompt in prompts:
        if (prompt.language, prompt.name) in taken:
            continue
        near = any(language == prompt.language and is_near_copy(prompt.words, words) for language, words in held)
        (copies if near else training).append(prompt)
    return Split(tuple(training), tuple(held.values()), tuple(copies))


def may_be_judged(prompt: Prompt) -> bool:
    """Return True for a whole sentence of ordinary length."""
    return len(prompt.words.split()) >= LEAST_WORDS and SECONDS[0] <= prompt.seconds <= SECONDS[1]


def is_near_copy(words: str, held: str) -> bool:
    """Return True if hearing `words` would be hearing the held-out sentence, or nearly. Both are normalized texts.

    That is: the same words, the held-out sentence within a longer text, few edits of words or of letters, or the same words in
    another order.
    """
    ours, theirs = words.split(), held.split()
    if not ours or not theirs:
        return False
    if f" {held} " in f" {words} ":
        return True
    longer = max(len(ours), len(theirs))
    union = set(ours) | set(theirs)
    if len(set(ours) & set(theirs)) >= SHARED_WORDS * len(union):
        return True
    if abs(len(ours) - len(theirs)) <= WORD_EDITS * longer and edit_distance(ours, theirs) <= WORD_EDITS * longer:
        return True
    bound = LETTER_EDITS * max(len(words), len(held))
    # An edit adds or removes at most one letter: most pairs need no distance.
    differ = (Counter(words) - Counter(held)).total(), (Counter(held) - Counter(words)).total()
    return max(differ) <= bound and edit_distance(words, held) <= bound


def within(prompts: Sequence[Prompt], minutes: float | None, seed: int) -> tuple[Prompt, ...]:
    """Return prompts of each language up to a number of minutes, chosen by a hash. None: all."""
    if minutes is None:
        return tuple(prompts)
    left = {prompt.language: minutes * 60 for prompt in prompts}
    chosen = set()
    for prompt in sorted(prompts, key=lambda prompt: (_draw(seed, prompt.language, prompt.words), prompt.name)):
        if prompt.seconds <= left[prompt.language]:
            left[prompt.language] -= prompt.seconds
            chosen.add((prompt.language, prompt.name))
    return tuple(prompt for prompt in prompts if (prompt.language, prompt.name) in chosen)


def _draw(seed: int, language: str, words: str) -> float:
    digest = hashlib.sha256(f"{seed}\n{language}\n{words}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
