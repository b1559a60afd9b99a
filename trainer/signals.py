"""Stopping in good order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_ASKED = threading.Event()


def never() -> bool:
    """Nobody asks to stop."""
    return False


def ask_to_stop() -> None:
    """As a signal does, for a run in a thread of this process."""
    _ASKED.set()


@contextmanager
def flag_on_signal() -> Iterator[Callable[[], bool]]:
    """SIGTERM and SIGINT only raise a flag: the step is finished and saved, then the run ends."""
    asked = False
    _ASKED.clear()

    def raise_flag(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True

    try:
        before = {number: signal.signal(number, raise_flag) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: whoever runs us there stops us in their own way
        yield lambda: asked or _ASKED.is_set()
        return
    try:
        yield lambda: asked or _ASKED.is_set()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
