"""Orders in which segments are used equally often. Each draw is a function of its number only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.runtime.seeds import random_bits, shuffled, stream_key


class Pools:
    """The segments of several kinds, each kind with its own order. Draw j of a kind depends only on (its key, j).

    A pass has about as many draws as a kind has segments, in shuffled order. Each language has its share of every pass. It uses
    all of its segments once, in a new order each time, before it repeats one. So all its segments are used equally often, even if
    the language is downsampled or repeated. Shuffles are functions (`seeds.shuffled`): a pass over millions of segments needs
    neither memory nor preparation time.
    """

    def __init__(
        self, keys: Sequence[object], members: Sequence[Sequence[np.ndarray]], shares: Sequence[np.ndarray]
    ) -> None:
        """All arguments are by kind. keys: determine the order. members: per language, the numbers [n] of its segments, not empty.
        shares: of the languages, each above 0; they add up to 1."""
        counts = [np.array([len(found) for found in parts], dtype=np.int64) for parts in members]
        wanted = [
            np.maximum(1, np.rint(share * count.sum())).astype(np.int64)
            for share, count in zip(shares, counts, strict=True)
        ]
        self.lengths = np.array([int(part.sum()) for part in wanted], dtype=np.int64)
        """int64 [kinds]: number of draws per pass."""
        self._firsts = np.cumsum(self.lengths) - self.lengths
        self._pass_keys = np.concatenate([stream_key(key, "pass") for key in keys])
        self._keys = np.concatenate(
            [stream_key(key, "language", n) for key, part in zip(keys, members, strict=True) for n in range(len(part))]
        )
        self._counts, self._wanted = np.concatenate(counts), np.concatenate(wanted)
        self._ends = np.cumsum(self._wanted)
        self._offsets = np.cumsum(self._counts) - self._counts
        self._members = np.concatenate([found for parts in members for found in parts])

    def draw(self, kinds: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Return [N]: the segments of draws `numbers` (int64 [N] from 0) of `kinds` (int64 [N])."""
        lengths = self.lengths[kinds]
        turns, places = np.divmod(numbers, lengths)
        keys = random_bits(self._pass_keys[kinds], turns)
        # Offset the places so that those of all kinds follow each other: one search then finds the language.
        places = shuffled(places, lengths, keys) + self._firsts[kinds]
        languages = np.searchsorted(self._ends, places, side="right")
        wanted, counts = self._wanted[languages], self._counts[languages]
        drawn = turns * wanted + places - (self._ends[languages] - wanted)
        rounds, places = np.divmod(drawn, counts)
        keys = random_bits(self._keys[languages], rounds)
        return np.asarray(self._members[self._offsets[languages] + shuffled(places, counts, keys)])
