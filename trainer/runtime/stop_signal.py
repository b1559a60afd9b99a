"""Stop requests: a run finishes its step and saves before it ends."""

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
"""The sources of stop requests. A list, since a signal handler may interrupt another append."""
_KILLED_BY_INTERRUPT = 128 + signal.SIGINT
_RAISED = 2
"""Number of the interrupt that ends the run without saving."""
_AT_ONCE = 3
"""Number of interrupts after which the process ends even if Python cannot run its handlers."""
_REPEAT_S = 0.5
_FIRST_INTERRUPT = (
    b"\nstopping: this step is finished and saved first; Ctrl-C again ends the run now (the same command resumes from the"
    b" last checkpoint), and once more ends it even if it hangs\n"
)


def never() -> bool:
    """Return False: there is never a stop request."""
    return False


def ask_to_stop() -> None:
    """Ask a run in a thread of this process to stop, as a signal does. It may be called before the run checks for requests."""
    _ASKED.append("caller")


@contextmanager
def flag_on_signal() -> Iterator[Callable[[], bool]]:
    """Set a flag on SIGTERM and the first SIGINT: the step is finished and saved, then the run ends.

    The second SIGINT raises KeyboardInterrupt. The third ends the process from a thread, in case the main thread hangs outside of
    Python. Requests by `ask_to_stop` are cleared at the end, not at the beginning: they may come while the run is being built.
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
    except ValueError:  # not the main thread: the caller may stop the run with `ask_to_stop`
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
    """Run a thread that sees each SIGINT when it arrives: it prints a message at the first and ends the process at the third.

    `handled`: number of interrupts that Python's handler has run for. It runs only once for two that arrive before it.
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
        # Python may run its handler once for two signals, or only at the next one. So resend the second until it has run twice.
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
        # Write directly to stderr: the main thread may be inside print. Only the first of several ranks writes.
        if seen == 1 and os.environ.get("RANK", "0") == "0":
            with suppress(OSError):
                os.write(2, _FIRST_INTERRUPT)
        if seen >= _AT_ONCE:
            os._exit(_KILLED_BY_INTERRUPT)
