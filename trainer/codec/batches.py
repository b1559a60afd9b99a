"""What each step is fitted to, in the order of its random numbers; on a GPU the next one is made while a step is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any, Generic, TypeVar

import numpy as np

from trainer.runtime.prefetch import Prefetcher

T = TypeVar("T")


class Batches(Generic[T]):
    """Batches that `make` draws one after the other, with a separate random generator.

    In the background, the next is under way when one is given out: `state` is that of the generator behind the last one given
    out, so that a run that resumes from it draws what an unbroken one would have.
    """

    def __init__(self, make: Callable[[np.random.Generator], T], seed: int, in_background: bool) -> None:
        self._make, self._prefetcher = make, Prefetcher(in_background)
        self.seek(np.random.default_rng(seed).bit_generator.state)

    def draw(self) -> T:
        """The next batch, or what making it raised."""
        batch, self.state = next(self._made)()
        return batch

    def seek(self, state: Mapping[str, Any]) -> None:
        """Resume from `state`; what is under way belongs to another generator and is thrown away."""
        rng = np.random.default_rng()
        rng.bit_generator.state = state

        def drawn(_: int) -> tuple[T, Mapping[str, Any]]:
            batch = self._make(rng)
            return batch, rng.bit_generator.state

        self.state = state
        self._made: Iterator[Callable[[], tuple[T, Mapping[str, Any]]]] = self._prefetcher.steps(drawn, count())

    def close(self) -> None:
        """End the thread; what it is at is thrown away."""
        self._prefetcher.close()
