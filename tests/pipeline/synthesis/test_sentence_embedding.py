"""Sentence embeddings: a tiny ONNX encoder gives the cosines of its word vectors; which rule is chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from pipeline.synthesis.texts import relatedness as module
from pipeline.synthesis.texts.distance import is_distant
from pipeline.synthesis.texts.embedding import SentenceEmbedding
from pipeline.synthesis.texts.relatedness import WEIGHTS, WordRule, relatedness

VOCABULARY = ("[UNK]", "boat", "ship", "wolf", "query", ":")
VECTORS = np.array([[0, 0, 1], [1, 0, 0], [0.9, 0.1, 0], [-1, 0.1, 0], [0, 0, 0], [0, 0, 0]], np.float32)


def _field(number: int, value: int | str | bytes) -> bytes:
    """One field of a protocol buffer: a number, or text and messages with their length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _tensor(name: str, kind: int, dims: tuple[str, ...]) -> bytes:
    shape = b"".join(_field(1, _field(2, dim)) for dim in dims)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, shape)))


def tiny_onnx() -> bytes:
    """An ONNX model whose hidden states are rows of VECTORS: one Gather. The package onnx is not installed."""
    table = b"".join(_field(1, size) for size in VECTORS.shape) + _field(2, 1) + _field(8, "table")
    graph = _field(1, b"".join((_field(1, "table"), _field(1, "input_ids"), _field(2, "hidden"), _field(4, "Gather"))))
    graph += _field(2, "tiny") + _field(5, table + _field(9, VECTORS.tobytes()))
    graph += _field(11, _tensor("input_ids", 7, ("batch", "time"))) + _field(
        12, _tensor("hidden", 1, ("batch", "time", "width"))
    )
    return _field(1, 8) + _field(8, _field(1, "") + _field(2, 13)) + _field(7, graph)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a tiny encoder and its tokenizer."""
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(tiny_onnx())
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_scores_are_the_cosines_of_mean_vectors(folder: Path) -> None:
    rule = SentenceEmbedding(folder)
    scores = rule.scores("boat", ["boat", "ship ship ship", "wolf", "tree", ""], "en")
    assert scores.dtype == np.float32
    assert np.allclose(scores, [1, 0.9 / np.hypot(0.9, 0.1), 0, 0, 0], atol=1e-5)
    assert rule.name.startswith("embedding-1:") and rule.bound == 0.85


def test_what_else_is_in_the_batch_does_not_matter(folder: Path) -> None:
    rule = SentenceEmbedding(folder)
    texts = [" ".join(["boat"] * n + ["wolf"] * (n % 3)) for n in range(1, 70)]
    assert np.allclose(rule.embed(texts), np.stack([rule.embed([text])[0] for text in texts]), atol=1e-6)


def test_a_paraphrase_without_shared_words_is_related(folder: Path) -> None:
    assert is_distant("boat", "ship", "en") is None
    assert is_distant("boat", "ship", "en", None, SentenceEmbedding(folder)) == "related"
    assert is_distant("boat", "wolf", "en", None, SentenceEmbedding(folder)) is None


def test_the_folder_is_used_if_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(relatedness(folder), SentenceEmbedding)
    monkeypatch.setattr(module, "available", lambda name: False)
    assert relatedness().name == "words-1" == WordRule.name
    monkeypatch.setattr(module, "available", lambda name: name == WEIGHTS)
    monkeypatch.setattr(module, "resolve", lambda name, fetch: folder)
    assert isinstance(relatedness(None), SentenceEmbedding)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected tokenizer\.json"):
        relatedness(tmp_path)
