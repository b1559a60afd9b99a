"""Progress messages while recordings are found and their files are read, from the first second on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from catalogs.durations import duration_text

log = logging.getLogger(__name__)

_WAITS_S = (1.0, 4.0, 10.0, 30.0)
"""Seconds until the first message, until the next ones, and from the last on between all others."""


class Meter:
    """How many files are found and read. Several threads may add to it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._began, self._reading_since = clock(), 0.0
        self._last = (0, 0, 0, 0)
        self._found = self._files = self._bytes = self._all_files = self._all_bytes = 0

    def found(self, files: int = 1) -> None:
        """Count files that were found."""
        self._found += files

    def expect(self, files: int, size: int) -> None:
        """Add files, and their bytes, that will be read."""
        with self._lock:
            if not self._all_files:
                self._reading_since = self._clock()
            self._all_files += files
            self._all_bytes += size

    def read(self, size: int, files: int = 0) -> None:
        """Count bytes and whole files that were read."""
        with self._lock:
            self._bytes += size
            self._files += files

    def news(self) -> str | None:
        """Return a message on the present state; None if it is that of the last message."""
        state = (self._found, self._files, self._bytes, self._all_files)
        before, self._last = self._last, state
        return None if state == before else self.line()

    def line(self) -> str:
        """Return a message on the present state."""
        now = self._clock()
        if not self._all_files:
            rate = self._found / max(now - self._began, 1e-9)
            return f"finding recordings: {self._found:,} files so far ({rate:,.0f} a second)"
        rate = self._bytes / max(now - self._reading_since, 1e-9)
        left = f", {duration_text((self._all_bytes - self._bytes) / rate)} left" if rate else ""
        return (
            f"reading new files: {self._files:,} of {self._all_files:,} ({self._bytes / 1e9:.1f} of "
            f"{self._all_bytes / 1e9:.1f} GB, {rate / 1e6:.0f} MB/s{left})"
        )


@contextmanager
def told(meter: Meter, waits_s: Sequence[float] = _WAITS_S) -> Iterator[None]:
    """Log the meter's line after each of `waits_s` seconds while the body runs, also if it waits for a slow disk."""
    done = threading.Event()

    def tell() -> None:
        turn = 0
        while not done.wait(waits_s[min(turn, len(waits_s) - 1)]):
            if line := meter.news():
                log.info(line)
            turn += 1

    teller = threading.Thread(target=tell, name="telling", daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()
