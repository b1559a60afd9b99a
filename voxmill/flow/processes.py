"""Start the process of a step, show its lines, pass signals on to it, and wait for its end. Locks of the flow's folder."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO

from voxmill.flow.settings import FlowError
from voxmill.flow.state import end, log_path, now, read_state
from voxmill.flow.steps.base import Step
from voxmill.terminal import Terminal

_LOOK_S = 0.2
"""Seconds between looks at the log and the process."""
_RUN, _STEP = ".lock", ".lock-step"


def run_in_child(step: Step, terminal: Terminal) -> int:
    """Run a step in a process with its log in FOLDER/logs; return its exit status, negative for a signal.

    SIGINT and SIGTERM are passed on, and this process waits: a training saves first. Then KeyboardInterrupt or SystemExit is
    raised. The child writes to the file and not to a pipe, so that it can save even if this process was killed.
    """
    folder = step.place.folder
    log = log_path(folder, step.name)
    log.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-u", "-m", "voxmill.flow.child", str(folder), step.name, str(os.getpid())]
    with log.open("ab") as sink, log.open("rb") as shown:
        sink.write(f"--- {now()} {step.name}\n".encode())
        sink.flush()
        shown.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True
        )
        lines = _Lines(shown, terminal)
        with _passing_on(process) as asked:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_LOOK_S)
                lines.show(last=process.returncode is not None)
                if process.returncode is not None:
                    break
        _raise_if_asked(step, asked())
        return process.returncode


def _raise_if_asked(step: Step, number: int | None) -> None:
    if number is None:
        return
    folder = step.place.folder
    state = read_state(folder, step.name)
    if state is not None and state.status == "running":
        end(folder, step.name, "stopped", 0.0, f"stopped by {signal.Signals(number).name}")
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


class _Lines:
    """Shows the whole lines that were added to a file. What a progress display draws is left out."""

    def __init__(self, file: IO[bytes], terminal: Terminal) -> None:
        self._file, self._terminal, self._rest = file, terminal, b""

    def show(self, last: bool) -> None:
        """Print new lines; the last one also without its end."""
        *whole, self._rest = (self._rest + self._file.read()).split(b"\n")
        if last and self._rest:
            whole, self._rest = [*whole, self._rest], b""
        for line in whole:
            if line.strip() and not line.startswith(b"voxmill: "):
                self._terminal.say(f"  {line.decode(errors='replace').rstrip()}")


@contextmanager
def _passing_on(process: subprocess.Popen[bytes]) -> Iterator[Callable[[], int | None]]:
    """Pass SIGINT and SIGTERM on to a process; yield a function that returns the first of them, or None."""
    asked: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        with suppress(ProcessLookupError):
            process.send_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked[0] if asked else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if process.poll() is None:
            process.terminate()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a flow. Raises FlowError while another run, or a step of a killed run, is at work."""
    with _held(folder / _RUN, folder):
        with _held(folder / _STEP, folder):
            pass
        yield


def at_work(folder: Path) -> bool:
    """Return True if a run of the flow, or a step of it, is at work now."""
    return any(_is_held(folder / name) for name in (_RUN, _STEP))


def _is_held(path: Path) -> bool:
    try:
        with path.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextmanager
def step_at_work(folder: Path) -> Iterator[None]:
    """Hold the lock of the one step at work. A step outlives a run that was killed until it has saved."""
    with _held(folder / _STEP, folder):
        yield


@contextmanager
def _held(path: Path, folder: Path) -> Iterator[None]:
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise FlowError(
                f"another run of this flow is at work in {folder} (process {lock.read().strip()}): wait for it or stop it"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
