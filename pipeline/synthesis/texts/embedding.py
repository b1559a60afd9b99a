"""Relatedness by sentence embeddings: multilingual-e5-small, or another encoder of its family, in ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from catalogs.files import file_sha256
from pipeline.quality.dnsmos import one_thread
from pipeline.runtime.batches import length_buckets

PREFIX = "query: "
"""What E5 wants before both texts of a symmetric comparison."""
BOUND = 0.85
"""E5's cosines lie close together. On the half `tune` of benchmarks/quality/relatedness.tsv, paraphrases begin at 0.86, and most
unrelated pairs are below 0.85 (docs/benchmarks.md). Measured with a 4-bit copy of the weights."""
MAX_TOKENS = 128
"""Some 90 words: longer than the transcript of any clip. What follows is not read."""
_BATCH = 32
_MODELS = ("onnx/model.onnx", "model.onnx")


class SentenceEmbedding:
    """Cosine of mean-pooled sentence embeddings; a negative one counts as 0."""

    def __init__(self, folder: Path, prefix: str = PREFIX, bound: float = BOUND) -> None:
        from tokenizers import Tokenizer

        found = [folder / name for name in _MODELS if (folder / name).is_file()]
        if not found or not (folder / "tokenizer.json").is_file():
            raise FileNotFoundError(
                f"{folder} has no sentence embeddings: expected tokenizer.json and {' or '.join(_MODELS)}"
            )
        self.bound, self._prefix = bound, prefix
        self.name = f"embedding-1:{file_sha256(found[0])[:8]}"
        self._net = one_thread(found[0])
        self._inputs = [given.name for given in self._net.get_inputs()]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()

    def scores(self, source: str, others: Sequence[str], language: str | None) -> np.ndarray:
        """Return the cosine of `source` with each of the others: `[N] float32` in 0..1."""
        return self.prepare([source, *others], language)(0)[1:]

    def prepare(self, texts: Sequence[str], language: str | None) -> Callable[[int], np.ndarray]:
        """Embed all texts once; return a function that scores one of them against all."""
        vectors = self.embed(texts)
        return lambda row: np.clip(vectors @ vectors[row], 0, 1).astype(np.float32)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return a unit vector for each text, or zeros for one without tokens: `[N, D] float32`."""
        encoded = [encoding.ids for encoding in self._tokenizer.encode_batch([self._prefix + text for text in texts])]
        vectors: dict[int, np.ndarray] = {}
        for batch in length_buckets(range(len(encoded)), _BATCH, lambda row: len(encoded[row])):
            vectors.update(zip(batch, self._run([encoded[row] for row in batch]), strict=True))
        return np.stack([vectors[row] for row in range(len(encoded))])

    def _run(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        ids = np.zeros((len(rows), max(1, *map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = np.asarray(self._net.run(None, {name: given[name] for name in self._inputs})[0], np.float32)
        if hidden.ndim == 3:
            # Padding takes no part in the mean.
            hidden = (hidden * mask[:, :, None]).sum(axis=1) / np.maximum(1, mask.sum(axis=1, keepdims=True))
        return np.asarray(hidden / np.maximum(1e-9, np.linalg.norm(hidden, axis=1, keepdims=True)), np.float32)
