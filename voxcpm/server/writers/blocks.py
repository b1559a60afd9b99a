"""Audio that arrives in any pieces, cut into blocks of one length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


class Blocks:
    """Cuts samples that arrive in any pieces into blocks of a fixed length."""

    def __init__(self, length: int) -> None:
        self._length, self._rest = length, np.zeros(0, np.float32)

    def push(self, samples: Samples) -> Iterator[Samples]:
        """Yield the whole blocks that there are with the next samples."""
        joined = np.concatenate((self._rest, samples)) if len(self._rest) else samples
        end = len(joined) // self._length * self._length
        self._rest = joined[end:].copy()
        return (joined[start : start + self._length] for start in range(0, end, self._length))

    def rest(self) -> Samples:
        """Return the last block, which may be empty."""
        return self._rest
