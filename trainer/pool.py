"""Orders in which segments come round equally often, each draw a function of its number alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_PASSES_KEPT = 2
"""Orders kept in memory: a run that goes on looks back into the pass before the one it is in."""


class Pool:
    """The segments that one layout is drawn from. Draw number j follows from (key, j) alone.

    A pass is about as many draws as there are segments, in an order of its own. Each language has its share of every pass and
    goes through its own segments, shuffled anew each time, before it repeats one: so all come round equally often, also
    where a language is thinned out or repeated.
    """

    def __init__(self, key: Sequence[int], members: Sequence[np.ndarray], shares: np.ndarray) -> None:
        """key: what the order follows from. members: by language, int64 [n] numbers of segments, none empty. shares: of the
        languages, each above 0; they add up to 1."""
        self._key, self.members = tuple(key), members
        self._wanted = np.maximum(1, np.rint(shares * sum(map(len, members)))).astype(int)
        self.length = int(self._wanted.sum())
        """Draws of a pass."""
        self._passes: dict[int, np.ndarray] = {}

    def draw(self, number: int) -> int:
        """The segment of draw `number`, from 0; quick where numbers rise."""
        turn, place = divmod(number, self.length)
        if turn not in self._passes:
            self._passes[turn] = self._pass(turn)
            while len(self._passes) > _PASSES_KEPT:
                del self._passes[next(iter(self._passes))]
        return int(self._passes[turn][place])

    def _pass(self, turn: int) -> np.ndarray:
        parts = [
            self._stretch(language, turn * int(wanted), int(wanted)) for language, wanted in enumerate(self._wanted)
        ]
        dice = np.random.default_rng([*self._key, 1, turn])
        return np.concatenate(parts)[dice.permutation(self.length)]

    def _stretch(self, language: int, start: int, count: int) -> np.ndarray:
        """Draws start..start + count - 1 of one language: a part of its shuffled segments, one shuffle after the other."""
        members = self.members[language]
        rounds = range(start // len(members), (start + count - 1) // len(members) + 1)
        shuffled = [
            members[np.random.default_rng([*self._key, 2, language, number]).permutation(len(members))]
            for number in rounds
        ]
        first = start - rounds[0] * len(members)
        return np.concatenate(shuffled)[first : first + count]
