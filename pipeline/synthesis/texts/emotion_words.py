"""Emotion words: which emotions a text speaks of, by the words in emotion_words.toml.

A text speaks of an emotion if it has one of its words, denied or not: "I am not afraid" is about fear. Exclamations ("ugh", "yay")
are in the lists. What a text means without such a word is not seen.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from catalogs.vocabulary.voices import EMOTIONS
from pipeline.synthesis.texts.content_words import base_code, comparable_parts

WHOLE_WORDS = ("en", "de", "es", "fr", "it", "pt", "ru", "pl", "nl")
"""Languages of the lexicon whose words are found as words, the others as characters in a row."""

FAMILIES = (
    frozenset({"happy", "excited", "amused"}),
    frozenset({"fearful", "worried"}),
    frozenset({"angry", "disgusted", "contemptuous"}),
    frozenset({"calm", "tender"}),
)
"""Emotions whose words stand for each other: a text about joy fits an excited voice as well as a happy one."""


@dataclass(frozen=True)
class EmotionWords:
    """The words of one language: emotion by whole word, by the beginning of a word, and by characters anywhere."""

    words: dict[str, str]
    beginnings: dict[str, str]
    lengths: tuple[int, ...]
    """Lengths of the beginnings, the longest first."""
    anywhere: dict[str, str]

    def found(self, parts: Iterable[str]) -> frozenset[str]:
        """Return the emotions of normalized words or clauses."""
        emotions = {emotion for part in parts for emotion in self._in_word(part)}
        if self.anywhere:
            whole = "\n".join(parts)
            emotions.update(emotion for word, emotion in self.anywhere.items() if word in whole)
        return frozenset(emotions)

    def _in_word(self, word: str) -> Iterable[str]:
        if word in self.words:
            yield self.words[word]
            return
        # The longest beginning decides.
        for length in self.lengths:
            if emotion := self.beginnings.get(word[:length]):
                yield emotion
                return


@functools.cache
def lexicons() -> dict[str, dict[str, list[str]]]:
    """Return the lists of emotion_words.toml by language and emotion, as they are written there."""
    return tomllib.loads((Path(__file__).parent / "emotion_words.toml").read_text(encoding="utf-8"))


@functools.cache
def lexicon(code: str) -> EmotionWords | None:
    """Return the words of a language; None if the file does not have it."""
    lists = lexicons().get(code)
    if lists is None:
        return None
    entries = {word: emotion for emotion, words in lists.items() for word in words}
    if code not in WHOLE_WORDS:
        return EmotionWords({}, {}, (), entries)
    beginnings = {word[:-1]: emotion for word, emotion in entries.items() if word.endswith("*")}
    words = {word: emotion for word, emotion in entries.items() if not word.endswith("*")}
    return EmotionWords(words, beginnings, tuple(sorted({*map(len, beginnings)}, reverse=True)), {})


def emotions_in(text: str, language: str | None) -> frozenset[str] | None:
    """Return the emotions that a text speaks of; None if the lexicon does not have the language."""
    code = base_code(language) if language else None
    words = lexicon(code) if code else None
    return None if words is None else words.found(comparable_parts(text, code))


def family(emotion: str) -> frozenset[str]:
    """Return an emotion and those whose words stand for it; empty for `neutral`, `unsure` and unknown emotions."""
    if emotion not in EMOTIONS or emotion == "neutral":
        return frozenset()
    return next((near for near in FAMILIES if emotion in near), frozenset({emotion}))


def families(emotions: Iterable[str]) -> frozenset[str]:
    """Return these emotions and all whose words stand for one of them."""
    return frozenset(near for emotion in emotions for near in family(emotion))


def speaks_of(text: str, language: str | None, emotion: str) -> bool | None:
    """Return True if a text speaks of an emotion or one of its family; None if the lexicon does not have the language."""
    found = emotions_in(text, language)
    return None if found is None else bool(found & family(emotion))
