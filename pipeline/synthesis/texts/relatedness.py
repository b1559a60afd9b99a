"""Rules for the relatedness of two texts: by their words, or by sentence embeddings if a model is on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from catalogs.vocabulary.comparable_text import is_unspaced
from catalogs.weights.registry import available, resolve
from pipeline.synthesis.texts.content_words import base_code, content_words
from pipeline.synthesis.texts.embedding import SentenceEmbedding
from pipeline.synthesis.texts.overlap import Overlap, forms

WEIGHTS = "multilingual-minilm"
"""The sentence embeddings of the registry."""

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
    """Relatedness by shared content words and shared parts of words. It needs no model and sees no paraphrase."""

    name = "words-1"
    bound = 0.2

    def scores(self, source: str, others: Sequence[str], language: str | None) -> np.ndarray:
        return self.prepare([source, *others], language)(0)[1:]

    def prepare(self, texts: Sequence[str], language: str | None) -> Scores:
        words = [content_words(text, language) for text in texts]
        by_word = Overlap(words)
        if _words_are_parts(texts, language):
            return by_word.of
        by_form = Overlap([forms(found) for found in words])
        return lambda row: np.maximum(by_word.of(row), by_form.of(row))


def relatedness(language_model: Path | None = None) -> Relatedness:
    """Return the rule to use: the embeddings in a folder, otherwise those of the registry if present, otherwise `WordRule`.

    language_model: a folder with `model.onnx` (or `onnx/model.onnx`) and `tokenizer.json`. Nothing is downloaded.
    """
    if language_model is not None:
        return SentenceEmbedding(language_model)
    if available(WEIGHTS):
        return SentenceEmbedding(resolve(WEIGHTS, fetch=False))
    return WordRule()


def _words_are_parts(texts: Sequence[str], language: str | None) -> bool:
    """Return True if content words are character grams already."""
    code = base_code(language, "\n".join(texts[:20]))
    return code == "ko" or (code is not None and is_unspaced(code))
