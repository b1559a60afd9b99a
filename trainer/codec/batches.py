"""What each step is fitted to, in the order of the dice; on a GPU the next one is made while a step is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import numpy as np

T = TypeVar("T")


class Batches(Generic[T]):
    """Batches that `make` draws one after the other, with a separate random generator.

    In the background, the next is under way when one is given out: `state` is that of the dice behind the last one given out,
    so that a run that resumes from it draws what an unbroken one would have.
    """

    def __init__(self, make: Callable[[np.random.Generator], T], seed: int, in_background: bool) -> None:
        self._make = make
        self._dice = np.random.default_rng(seed)
        self._thread = ThreadPoolExecutor(1, "crops") if in_background else None
        self._next: Future[tuple[T, Mapping[str, Any]]] | None = None
        self.state: Mapping[str, Any] = self._dice.bit_generator.state

    def draw(self) -> T:
        """The next batch, or what making it raised."""
        if self._thread is None:
            batch, self.state = self._drawn()
            return batch
        under_way = self._next or self._thread.submit(self._drawn)
        self._next = None
        batch, self.state = under_way.result()
        self._next = self._thread.submit(self._drawn)
        return batch

    def seek(self, state: Mapping[str, Any]) -> None:
        """Resume from `state`."""
        if self._next is not None:
            self._next.cancel() or self._next.exception()
            self._next = None
        self.state = self._dice.bit_generator.state = state

    def close(self) -> None:
        """End the thread; what it is at is thrown away."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def _drawn(self) -> tuple[T, Mapping[str, Any]]:
        batch = self._make(self._dice)
        return batch, self._dice.bit_generator.state
