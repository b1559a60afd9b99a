"""Rules for the relatedness of two texts: by their words, or by sentence embeddings if a model is on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from catalogs.weights.registry import available, resolve
from pipeline.synthesis.texts.content_words import base_code, content_words
from pipeline.synthesis.texts.embedding import SentenceEmbedding
from pipeline.synthesis.texts.overlap import Overlap

WEIGHTS = "multilingual-e5-small"
"""The sentence embeddings of the registry."""

PAIRS = ("zh", "ja", "ko")
"""Languages whose content words are pairs of characters."""
CHARACTERS = 0.8
"""What a shared character counts compared with a shared pair: "唱" and "歌" are in "唱歌", but also apart in other words."""

Scores = Callable[[int], np.ndarray]
"""Relatedness of text `row` with each of N prepared texts: `[N] float32` in 0..1."""


class Relatedness(Protocol):
    """How related two texts are in meaning."""

    name: str
    """Goes into the corpus: which rule decided, in which version."""
    bound: float
    """Texts with this score or more are too near."""

    def scores(self, source: str, others: Sequence[str], language: str | None) -> np.ndarray:
        """Return the relatedness of `source` with each of the others: `[N] float32` in 0..1."""
        ...

    def prepare(self, texts: Sequence[str], language: str | None) -> Scores:
        """Read all texts once; return a function that scores one of them against all."""
        ...


class WordRule:
    """Relatedness by the share of content words that have a form in the other text. No model; it sees no paraphrase.

    In Chinese, Japanese and Korean, where a content word is a pair of characters, single characters count as well, but less.
    """

    name = "words-1"
    bound = 0.2

    def scores(self, source: str, others: Sequence[str], language: str | None) -> np.ndarray:
        """Return the relatedness of `source` with each of the others: `[N] float32` in 0..1."""
        return self.prepare([source, *others], language)(0)[1:]

    def prepare(self, texts: Sequence[str], language: str | None) -> Scores:
        """Find the content words of all texts once; return a function that scores one of them against all."""
        words = [content_words(text, language) for text in texts]
        if base_code(language, "".join(texts[:20])) not in PAIRS:
            return Overlap(words, forms=True).of
        by_pair, by_character = Overlap(words), Overlap([frozenset("".join(found)) for found in words])
        return lambda row: np.maximum(by_pair.of(row), CHARACTERS * by_character.of(row))


def relatedness(language_model: Path | None = None) -> Relatedness:
    """Return the rule to use: the embeddings in a folder, otherwise those of the registry if present, otherwise `WordRule`.

    language_model: a folder with an encoder of the E5 family: `model.onnx` (or `onnx/model.onnx`) and `tokenizer.json`. Nothing is
    downloaded.
    """
    if language_model is not None:
        return SentenceEmbedding(language_model)
    if available(WEIGHTS):
        return SentenceEmbedding(resolve(WEIGHTS, fetch=False))
    return WordRule()
