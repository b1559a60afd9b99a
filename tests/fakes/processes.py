"""Processes that a test started: the whole family of one, read from /proc, and the end of it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

PATIENCE_S = 900.0
"""Seconds that a test waits for a process before it takes it for hung. No test measures speed: a busy machine may take long."""


@dataclass(frozen=True)
class Process:
    """A process by id and start time: an id alone may have been given to another process since."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether it still runs (a zombie does not)."""
        fields = _stat(self.pid)
        return fields is not None and int(fields[19]) == self.started and fields[0] != "Z"

    @property
    def title(self) -> str:
        """Its command line; empty when it is gone."""
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return ""

    def kill(self) -> bool:
        """SIGKILL, if it still runs; whether it did."""
        if not self.alive:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
            return True
        return False


def family(pid: int) -> list[Process]:
    """All living descendants of a process."""
    children: dict[int, list[int]] = {}
    started: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))) is not None:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
            started[int(entry.name)] = int(fields[19])
    found: list[Process] = []
    new = [pid]
    while new:
        new = [child for parent in new for child in children.get(parent, [])]
        found += [Process(child, started[child]) for child in new]
    return found


def gone(processes: list[Process], within_s: float) -> list[Process]:
    """Wait for processes to end; those that have not."""
    deadline = time.monotonic() + within_s
    left = [process for process in processes if process.alive]
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = [process for process in left if process.alive]
    return left


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name: state, parent, ..., start time (index 19)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
