"""How much sets of words overlap: one text against many, as sparse counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.sparse import csc_array, csr_array, eye_array

STEM = 4
"""Characters that inflected or compounded forms of a word have in common at least."""


class Overlap:
    """Sets of strings of N texts, prepared so that comparing one with all takes milliseconds for 10,000 texts.

    forms: count words as shared if they are forms of one word (`are_forms`), not only if they are equal.
    """

    def __init__(self, sets: Sequence[frozenset[str]], forms: bool = False) -> None:
        ids: dict[str, int] = {}
        columns = [ids.setdefault(item, len(ids)) for items in sets for item in sorted(items)]
        starts = np.cumsum([0, *map(len, sets)])
        shape = (len(sets), max(1, len(ids)))
        self._rows = csr_array((np.ones(len(columns), np.float32), np.asarray(columns, np.int64), starts), shape=shape)
        self._sizes = np.diff(starts)
        self._forms = _related(list(ids), shape[1]) if forms else None

    def of(self, row: int) -> np.ndarray:
        """Return what text `row` and each text share, as a share of the smaller set: `[N] float32` in 0..1.

        An empty set shares nothing, not even with itself. With `forms`, it is the larger of both sets' shares of matched words.
        """
        own = self._rows.indices[self._rows.indptr[row] : self._rows.indptr[row + 1]]
        if not len(own):
            return np.zeros(len(self._sizes), np.float32)
        if self._forms is None:
            found = self._rows @ _marks(own, self._rows.shape[1])
            return np.asarray(found / np.maximum(1, np.minimum(self._sizes, len(own))), np.float32)
        near = self._forms[:, own]
        theirs = self._rows @ (near.sum(axis=1) > 0).astype(np.float32)
        # How many of this text's words have a form in the other.
        ours = np.diff((self._rows @ near.tocsr()).tocsr().indptr)
        return np.asarray(np.maximum(theirs / np.maximum(1, self._sizes), ours / len(own)), np.float32)


def are_forms(first: str, second: str) -> bool:
    """Return True if two words are alike: one begins or ends with the other, or both begin alike for most of the shorter one.

    At least `STEM` characters are alike: "lauf" and "lauft", "hund" and "hundefutt".
    """
    short, long = sorted((first, second), key=len)
    if first == second:
        return True
    if len(short) < STEM:
        return False
    if long.startswith(short) or long.endswith(short):
        return True
    alike = next((at for at, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    return alike >= max(STEM, 0.75 * len(short))


def _marks(ids: np.ndarray, size: int) -> np.ndarray:
    marks = np.zeros(size, np.float32)
    marks[ids] = 1
    return marks


def _related(words: Sequence[str], size: int) -> csc_array:
    """Return which words are forms of which: `[V, V]` of ones."""
    pairs = {(row, other) for row, other in _candidates(words) if are_forms(words[row], words[other])}
    rows, columns = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    ones = np.ones(2 * len(pairs), np.float32)
    found = csr_array((ones, (np.r_[rows, columns], np.r_[columns, rows])), shape=(size, size))
    return csc_array(found + eye_array(size, dtype=np.float32))


def _candidates(words: Sequence[str]) -> Iterable[tuple[int, int]]:
    """Yield pairs of ids whose words begin alike, or of which one ends with the other."""
    ids = {word: at for at, word in enumerate(words)}
    heads: dict[str, list[int]] = defaultdict(list)
    for at, word in enumerate(words):
        if len(word) < STEM:
            continue
        yield from ((at, other) for other in heads[word[:STEM]])
        heads[word[:STEM]].append(at)
        for start in range(1, len(word) - STEM + 1):
            if (other := ids.get(word[start:])) is not None:
                yield at, other


def grams(words: Iterable[str], size: int) -> frozenset[str]:
    """Return all `size` neighboring characters of each word, with a mark at its beginning."""
    marked = [f"^{word}" for word in words]
    return frozenset(word[at : at + size] for word in marked for at in range(max(1, len(word) - size + 1)))
