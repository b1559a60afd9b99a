"""Stopping in good order."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType

_ASKED: list[str] = []
"""Who has asked. A list: what appends to it may interrupt itself, as a signal handler does."""
_KILLED_BY_INTERRUPT = 128 + signal.SIGINT
_RAISED = 2
"""The interrupt that ends the run where it is."""
_AT_ONCE = 3
"""Interrupts after which the process ends even if Python never gets to run its handlers."""
_REPEAT_S = 0.5
_FIRST_INTERRUPT = (
    b"\nstopping: this step is finished and saved first; Ctrl-C again ends the run now (the same command resumes from the"
    b" last checkpoint), and once more ends it even if it hangs\n"
)


def never() -> bool:
    """Nobody asks to stop."""
    return False


def ask_to_stop() -> None:
    """As a signal does, for a run in a thread of this process. It may come before the run is ready to look at it."""
    _ASKED.append("caller")


@contextmanager
def flag_on_signal() -> Iterator[Callable[[], bool]]:
    """SIGTERM and the first SIGINT only raise a flag: the step is finished and saved, then the run ends.

    The second SIGINT raises KeyboardInterrupt; the third ends the process from a thread, for a main thread that hangs outside of
    Python. `ask_to_stop` is forgotten at the end and not at the beginning: it may come while the run is being built.
    """
    interrupts = 0

    def raise_flag(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        _ASKED.append("signal")
        if number == signal.SIGINT:
            interrupts += 1
            if interrupts == _RAISED:
                raise KeyboardInterrupt

    try:
        before = {number: signal.signal(number, raise_flag) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: whoever runs us there stops us in their own way
        before = {}
    try:
        with _watched_interrupts(bool(before), lambda: interrupts):
            yield partial(bool, _ASKED)
    finally:
        _ASKED.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _watched_interrupts(in_main_thread: bool, handled: Callable[[], int]) -> Iterator[None]:
    """A thread that sees each SIGINT when it arrives: it answers the first, and ends the process at the third.

    `handled`: how many of them Python's handler has run for. Two that arrive before it runs are one to it.
    """
    if not in_main_thread:
        yield
        return
    reads, writes = socket.socketpair()
    writes.setblocking(False)
    thread = threading.Thread(
        target=_watch, args=(reads, threading.get_ident(), handled), name="interrupts", daemon=True
    )
    thread.start()
    before = signal.set_wakeup_fd(writes.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        writes.close()
        thread.join()
        reads.close()


def _watch(arrivals: socket.socket, main: int, handled: Callable[[], int]) -> None:
    seen = repeated = 0
    while True:
        # Python may run its handler once for two signals, or not before the next one: the second is sent again until it ran twice.
        arrivals.settimeout(_REPEAT_S if seen == _RAISED and handled() < _RAISED else None)
        try:
            received = arrivals.recv(1)
        except TimeoutError:
            repeated += 1
            signal.pthread_kill(main, signal.SIGINT)
            continue
        if not received:
            return
        if received[0] != signal.SIGINT:
            continue
        if repeated:
            repeated -= 1
            continue
        seen += 1
        # Straight to the terminal: print may be what the main thread is in the middle of. One rank of several speaks.
        if seen == 1 and os.environ.get("RANK", "0") == "0":
            with suppress(OSError):
                os.write(2, _FIRST_INTERRUPT)
        if seen >= _AT_ONCE:
            os._exit(_KILLED_BY_INTERRUPT)
