"""Text to token ids: the checkpoint's Llama-format BPE, with multi-character Chinese pieces split into characters."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from voxcpm.errors import CheckpointError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPACE_MARK = "\u2581"
_HAN_ONLY = re.compile(r"[\u4e00-\u9fff]{2,}\Z")


class TextTokenizer:
    """The tokenizer of a checkpoint folder (`tokenizer.json`). BOS and EOS are never added, even if its config asks for them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._bpe = tokenizer
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        self._ids = vocabulary
        self._unknown = vocabulary.get("<unk>", 0)
        self._chinese = _chinese_words(vocabulary)

    @classmethod
    def load(cls, folder: str | Path) -> TextTokenizer:
        """Read `tokenizer.json`. Raises FileNotFoundError, and CheckpointError if the file is not a tokenizer."""
        path = Path(folder)
        path = path / "tokenizer.json" if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"{path} not found: a VoxCPM2 checkpoint folder holds tokenizer.json")
        return _load(str(path.resolve()), path.stat().st_mtime_ns)

    @property
    def size(self) -> int:
        """The number of entries, added tokens included."""
        return self._bpe.get_vocab_size(with_added_tokens=True)

    @property
    def unknown(self) -> int:
        """The id of `<unk>`, 0 if there is none."""
        return self._unknown

    def pieces(self, text: str) -> list[str]:
        """Split a text into pieces, and Chinese words into characters. A split piece loses its space mark; others stay whole."""
        return _in_characters(self._bpe.encode(text, add_special_tokens=False).tokens, self._chinese)

    def encode(self, text: str) -> list[int]:
        """Return token ids. A character that is not in the vocabulary after splitting is `<unk>` (no byte fallback then)."""
        return [self._ids.get(piece, self._unknown) for piece in self.pieces(text)]

    def __call__(self, text: str) -> list[int]:
        """Return `encode(text)`: the official way to call a model's tokenizer."""
        return self.encode(text)

    @cached_property
    def tokenizer(self) -> PieceTokenizer:
        """The tokenizer below, with Chinese words whole, for code that reads its vocabulary."""
        return PieceTokenizer(self._bpe, self._unknown)

    def count(self, texts: list[str]) -> np.ndarray:
        """Return int32 [texts]: the number of ids from `encode` for each text, computed many times faster."""
        encoded = [one.ids for one in self._bpe.encode_batch_fast(texts, add_special_tokens=False)]
        ends = np.cumsum([0, *map(len, encoded)])
        lengths = np.zeros(int(ends[-1]) + 1, dtype=np.int64)
        ids = np.fromiter((number for one in encoded for number in one), dtype=np.int64, count=int(ends[-1]))
        np.cumsum(self._lengths[ids], out=lengths[1:])
        return np.diff(lengths[ends]).astype(np.int32)

    @cached_property
    def digest(self) -> str:
        """A hash, 16 hex digits, of everything that determines the token ids."""
        return hashlib.sha256(self._bpe.to_str().encode()).hexdigest()[:16]

    @cached_property
    def _lengths(self) -> np.ndarray:
        """int64 [ids]: the number of pieces that each id becomes."""
        found = np.ones(max(self._ids.values(), default=0) + 1, dtype=np.int64)
        for piece, number in self._ids.items():
            bare = piece.replace(SPACE_MARK, "")
            if bare in self._chinese:
                found[number] = len(bare)
        return found


class PieceTokenizer:
    """The checkpoint's BPE with the method names of the `transformers` library."""

    def __init__(self, bpe: Tokenizer, unknown: int) -> None:
        self._bpe = bpe
        self.vocab: dict[str, int] = bpe.get_vocab(with_added_tokens=True)
        self.unk_token_id = unknown

    def get_vocab(self) -> dict[str, int]:
        """All pieces and their ids."""
        return self.vocab

    def tokenize(self, text: str) -> list[str]:
        """Split a text into pieces."""
        pieces: list[str] = self._bpe.encode(text, add_special_tokens=False).tokens
        return pieces

    def convert_tokens_to_ids(self, tokens: str | list[str]) -> int | list[int]:
        """Return the id of a piece, or the ids of several; `unk_token_id` for what is not in the vocabulary."""
        if isinstance(tokens, str):
            return self.vocab.get(tokens, self.unk_token_id)
        return [self.vocab.get(token, self.unk_token_id) for token in tokens]


class CharacterTokenizer:
    """A tokenizer of the `transformers` kind whose Chinese words are split into characters."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._chinese = _chinese_words(tokenizer.get_vocab())

    def tokenize(self, text: str, **options: Any) -> list[str]:
        """Split a text into pieces and Chinese characters. options: those of the wrapped tokenizer."""
        return _in_characters(self.tokenizer.tokenize(text, **options), self._chinese)

    def __call__(self, text: str, **options: Any) -> list[int]:
        """Return the ids of `tokenize`."""
        ids: list[int] = self.tokenizer.convert_tokens_to_ids(self.tokenize(text, **options))
        return ids


def _chinese_words(vocabulary: Iterable[str]) -> frozenset[str]:
    """The pieces that are two or more Chinese characters."""
    return frozenset(piece for piece in vocabulary if _HAN_ONLY.match(piece))


def _in_characters(pieces: Iterable[str], chinese: frozenset[str]) -> list[str]:
    """Split the pieces that are Chinese words into characters; a split piece loses its space mark."""
    split: list[str] = []
    for piece in pieces:
        bare = piece.replace(SPACE_MARK, "")
        split.extend(bare if bare in chinese else (piece,))
    return split


@lru_cache(maxsize=8)
def _load(path: str, _changed: int) -> TextTokenizer:
    from tokenizers import Tokenizer

    try:
        return TextTokenizer(Tokenizer.from_file(path))
    except Exception as error:  # The library raises plain Exception.
        raise CheckpointError(f"{path} is not a tokenizer that can be read ({' '.join(str(error).split())})") from None


def collapse_whitespace(text: str) -> str:
    """Replace newlines and runs of white space by one space each, also at the ends (the official API does not strip)."""
    return re.sub(r"\s+", " ", text.replace("\n", " "))
