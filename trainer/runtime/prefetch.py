"""Prefetch: the input of a step is made while the previous step is computed."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import TracebackType
from typing import TypeVar

_SWITCH_S = 2e-4

T = TypeVar("T")


class Prefetcher:
    """Makes the input of a step one step ahead in a thread (`in_background`), or otherwise on request.

    On a GPU the host is idle while a step is computed; planning, audio, packing and random numbers take a tenth of the step's
    time. On a CPU the cores limit a step, so that a thread gains nothing. In both cases the waiting time counts for the step.
    """

    def __init__(self, in_background: bool) -> None:
        self._thread = ThreadPoolExecutor(1, "samples") if in_background else None
        self._switch_s = sys.getswitchinterval()

    def __enter__(self) -> Prefetcher:
        if self._thread is not None:
            # The thread that feeds the GPU must not wait the default 5 ms for the interpreter lock each time.
            sys.setswitchinterval(_SWITCH_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            sys.setswitchinterval(self._switch_s)
        self.close()

    def close(self) -> None:
        """End the thread; the input it is making is discarded."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def steps(self, make: Callable[[int], T], steps: Iterable[int]) -> Iterator[Callable[[], T]]:
        """Yield for each step a function that returns what `make(step)` returned, or raises what it raised. The function may be
        called any number of times.

        `make` is called for one step after the other, never for two at once.
        """
        waiting: deque[Callable[[], T]] = deque()
        for step in steps:
            waiting.append(self._start(make, step))
            if len(waiting) > (self._thread is not None):
                yield waiting.popleft()
        yield from waiting

    def _start(self, make: Callable[[int], T], step: int) -> Callable[[], T]:
        if self._thread is None:
            return cache(lambda: make(step))
        return self._thread.submit(make, step).result
