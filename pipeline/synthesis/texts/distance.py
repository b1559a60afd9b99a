"""Whether two texts are far enough apart in words, meaning and emotion words for a content-decoupled sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from catalogs.vocabulary.voices import EMOTIONS
from pipeline.synthesis.texts.content_words import base_code, comparable_parts, content_words
from pipeline.synthesis.texts.emotion_words import emotions_in, families, family
from pipeline.synthesis.texts.overlap import Overlap, grams
from pipeline.synthesis.texts.relatedness import Relatedness, WordRule

Reason = Literal["same_text", "near_text", "shared_words", "related", "same_emotion_words"]
"""Why a text is too near, in the order in which they are tested."""

SHARED_WORDS = 0.15
"""Cap: content words that two texts share, as a share of those of the text with fewer."""
NEAR_TEXT = 0.7
"""Parts of three characters that two texts share, function words included, as a share of those of the shorter text."""


class Texts:
    """Texts of one language, read once, so that one can be compared with all of them in milliseconds."""

    def __init__(self, texts: Sequence[str], language: str | None, rule: Relatedness | None = None) -> None:
        self.texts, self.language, self.rule = tuple(texts), language, rule or WordRule()
        parts = [comparable_parts(text, base_code(language, text)) for text in self.texts]
        self._plain = ["\n".join(found) for found in parts]
        self._letters = Overlap([grams(found, 3) for found in parts])
        self._words = Overlap([content_words(text, language) for text in self.texts])
        by_words = WordRule()
        self._by_words, self._bound = by_words.prepare(self.texts, language), by_words.bound
        same = isinstance(self.rule, WordRule)
        self._related = self._by_words if same else self.rule.prepare(self.texts, language)
        self._emotions = [emotions_in(text, language) or frozenset() for text in self.texts]
        self._speaks = np.array([[emotion in found for emotion in EMOTIONS] for found in self._emotions], dtype=bool)

    @classmethod
    def of(cls, texts: Sequence[str], language: str | None, rule: Relatedness | None = None) -> Texts:
        """Read texts of one language. rule: what decides about their relatedness; `WordRule` if None."""
        return cls(texts, language, rule)

    def __len__(self) -> int:
        return len(self.texts)

    def scores(self, row: int) -> np.ndarray:
        """Return the rule's relatedness of text `row` with each text: `[N] float32` in 0..1."""
        return self._related(row)

    def reasons(self, row: int, emotion: str | None = None) -> list[Reason | None]:
        """Return why each text is too near to text `row`, or None for those that are distant.

        emotion: what the voice of text `row` expresses. A text that speaks of it is `same_emotion_words`.
        """
        found: list[Reason | None] = [None] * len(self)
        for reason, near in self._tests(row, emotion):
            for at in np.flatnonzero(near):
                found[at] = found[at] or reason
        return found

    def distant(self, row: int, emotion: str | None = None) -> np.ndarray:
        """Return which texts are distant from text `row`: `[N] bool`."""
        return ~np.logical_or.reduce([near for _, near in self._tests(row, emotion)])

    def _tests(self, row: int, emotion: str | None) -> list[tuple[Reason, np.ndarray]]:
        return [
            # Compared as Python strings: NumPy would drop a NUL at their end.
            ("same_text", np.array([plain == self._plain[row] for plain in self._plain])),
            ("near_text", self._letters.of(row) >= NEAR_TEXT),
            ("shared_words", self._words.of(row) > SHARED_WORDS),
            # Embeddings see paraphrases, but inflected words of another topic only by chance.
            ("related", (self.scores(row) >= self.rule.bound) | (self._by_words(row) >= self._bound)),
            ("same_emotion_words", self._same_emotions(row, emotion)),
        ]

    def _same_emotions(self, row: int, emotion: str | None) -> np.ndarray:
        avoided = families(self._emotions[row]) | (family(emotion) if emotion else frozenset())
        return np.asarray(self._speaks[:, [EMOTIONS.index(name) for name in avoided]].any(axis=1))


def is_distant(
    source: str, other: str, language: str | None, emotion: str | None = None, rule: Relatedness | None = None
) -> Reason | None:
    """Return None if `other` is far enough from `source`, otherwise the reason why it is too near. See `Texts.reasons`."""
    return Texts.of([source, other], language, rule).reasons(0, emotion)[1]
