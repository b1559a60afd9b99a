"""The rows of each step in turn, the samples of the next one made while a step is computed."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any

from trainer.data import Planned, RowStream
from trainer.step import Part

_SWITCH_S = 2e-4


@dataclass(frozen=True)
class StepRows:
    """What one step is made of: its rows on all ranks, the place in the data behind them, and a function that gives this rank's
    parts of them (or raises what making them raised)."""

    planned: list[list[Planned]]
    after: dict[str, Any]
    parts: Callable[[], list[Part]]


class Ahead:
    """Makes samples one step ahead in a thread of its own; or, where that gains nothing, when they are asked for.

    On a GPU the host is idle while a step is computed, and audio, packing and random numbers take a tenth of its time. On a CPU
    the cores are what a step is short of.
    """

    def __init__(self, in_background: bool) -> None:
        self._thread = ThreadPoolExecutor(1, "samples") if in_background else None
        self._switch_s = sys.getswitchinterval()

    def __enter__(self) -> Ahead:
        if self._thread is not None:
            # The thread that feeds the GPU must not wait for the interpreter the usual 5 ms each time.
            sys.setswitchinterval(_SWITCH_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            sys.setswitchinterval(self._switch_s)

    def steps(
        self,
        rows: RowStream,
        each: int,
        steps: range,
        prepare: Callable[[int, list[list[Planned]]], list[Part]],
    ) -> Iterator[StepRows]:
        """`each` rows a step for the steps of the range; prepare(step, rows) makes this rank's parts of them."""
        waiting: deque[StepRows] = deque()
        for step in steps:
            planned = list(islice(rows, each))
            waiting.append(StepRows(planned, rows.state(), self._start(prepare, step, planned)))
            if len(waiting) > (self._thread is not None):
                yield waiting.popleft()
        yield from waiting

    def _start(
        self, prepare: Callable[[int, list[list[Planned]]], list[Part]], step: int, planned: list[list[Planned]]
    ) -> Callable[[], list[Part]]:
        if self._thread is None:
            return lambda: prepare(step, planned)
        return self._thread.submit(prepare, step, planned).result
