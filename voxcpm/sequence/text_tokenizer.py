"""Text to token ids: the checkpoint's Llama-format BPE, with multi-character Chinese pieces split into characters."""

from __future__ import annotations

import hashlib
import re
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

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
        self._chinese = frozenset(piece for piece in vocabulary if _HAN_ONLY.match(piece))

    @classmethod
    def load(cls, folder: str | Path) -> TextTokenizer:
        """Read `tokenizer.json`. Raises FileNotFoundError, and CheckpointError if the file is not a tokenizer."""
        path = Path(folder)
        path = path / "tokenizer.json" if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"{path} not found: a checkpoint folder of VoxCPM holds tokenizer.json")
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
        pieces: list[str] = []
        for piece in self._bpe.encode(text, add_special_tokens=False).tokens:
            bare = piece.replace(SPACE_MARK, "")
            if bare in self._chinese:
                pieces.extend(bare)
            else:
                pieces.append(piece)
        return pieces

    def encode(self, text: str) -> list[int]:
        """Return token ids. A character that is not in the vocabulary after splitting is `<unk>` (no byte fallback then)."""
        return [self._ids.get(piece, self._unknown) for piece in self.pieces(text)]

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
