"""The batches of the steps, in the order of their random numbers. The next batch is made while a step is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any, Generic, TypeVar

import numpy as np

from trainer.runtime.prefetch import Prefetcher

T = TypeVar("T")


class Batches(Generic[T]):
    """Batches that `make` draws one after the other, with a separate random generator.

    The next batch is already being made when one is returned. `state` is the generator's state after the last batch that was
    returned. So a run that resumes from it draws the same batches as an uninterrupted run.
    """

    def __init__(self, make: Callable[[np.random.Generator], T], seed: int) -> None:
        self._make, self._prefetcher = make, Prefetcher()
        self.seek(np.random.default_rng(seed).bit_generator.state)

    def draw(self) -> T:
        """Return the next batch, or raise what making it raised."""
        batch, self.state = next(self._made)()
        return batch

    def seek(self, state: Mapping[str, Any]) -> None:
        """Resume from `state`. A batch that is being made belongs to another generator and is discarded."""
        rng = np.random.default_rng()
        rng.bit_generator.state = state

        def drawn(_: int) -> tuple[T, Mapping[str, Any]]:
            batch = self._make(rng)
            return batch, rng.bit_generator.state

        self.state = state
        self._made: Iterator[Callable[[], tuple[T, Mapping[str, Any]]]] = self._prefetcher.steps(drawn, count())

    def close(self) -> None:
        """End the thread; the batch it is making is discarded."""
        self._prefetcher.close()
