"""Prefetch: a thread makes the input of a step while the previous step is computed."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

_SWITCH_S = 2e-4

T = TypeVar("T")


class Prefetcher:
    """Makes the input of a step one step ahead in a thread.

    On a GPU the host is idle while a step is computed; planning, audio, packing and random numbers take a tenth of the step's
    time. The time that a step waits for its input counts for the step.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "samples")
        self._switch_s = sys.getswitchinterval()

    def __enter__(self) -> Prefetcher:
        # The thread that feeds the GPU must not wait the default 5 ms for the interpreter lock each time.
        sys.setswitchinterval(_SWITCH_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.setswitchinterval(self._switch_s)
        self.close()

    def close(self) -> None:
        """End the thread; the input it is making is discarded."""
        self._thread.shutdown(cancel_futures=True)

    def steps(self, make: Callable[[int], T], steps: Iterable[int]) -> Iterator[Callable[[], T]]:
        """Yield for each step a function that returns what `make(step)` returned, or raises what it raised. The function may be
        called any number of times.

        `make` is called for one step after the other, never for two at once.
        """
        waiting: deque[Callable[[], T]] = deque()
        for step in steps:
            waiting.append(self._thread.submit(make, step).result)
            if len(waiting) > 1:
                yield waiting.popleft()
        yield from waiting
