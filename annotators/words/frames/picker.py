"""Deterministic choice among wordings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Picker:
    """Choose by a seed string: the same calls give the same choices on every machine."""

    def __init__(self, seed: str) -> None:
        self._seed = seed.encode()
        self._left, self._room, self._block = 0, 1, 0

    def below(self, count: int) -> int:
        """Return a number of 0 to count - 1."""
        if self._room < count << 32:
            digest = hashlib.sha256(self._block.to_bytes(4, "big") + self._seed).digest()
            self._left, self._room, self._block = int.from_bytes(digest, "big"), 1 << 256, self._block + 1
        self._left, chosen = divmod(self._left, count)
        self._room //= count
        return chosen

    def __call__(self, choices: Sequence[Item]) -> Item:
        """Return one of the choices. Raises ValueError if there is none."""
        if not choices:
            raise ValueError("there is nothing to choose from")
        return choices[self.below(len(choices))]

    def weighted(self, choices: Iterable[tuple[int, Item]]) -> Item:
        """Return one of (weight, item), as often as its weight says. Raises ValueError if there is none."""
        return self([item for weight, item in choices for _ in range(weight)])

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """Return the items in another order."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(len(left))]
