"""A process that answers one line with one line. It may print what it likes, hang, or crash: the caller learns which.

Its answers are JSON objects behind the prefix `VOXMILL `, anywhere in a line of its standard output. All else that it prints, and
its standard error, is kept for error messages only.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

PREFIX = b"VOXMILL "
MOST_LINE = 1 << 20
"""Bytes of a line without end that are kept."""
_TAIL = 4096
_LINES = 3
_PATIENCE_S = 10.0
"""Seconds that a process is given to end by itself."""
_AFTER_OUTPUT_S = 1.0
"""The same of one whose standard output has ended."""

Answer = dict[str, Any]


class WorkerDiedError(RuntimeError):
    """The process ended, or closed its standard output. The message holds its exit status and its last words."""


class WorkerLateError(RuntimeError):
    """The process did not answer in time. It still runs."""


class Worker:
    """A running process with its own process group.

    Raises OSError if the command cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            env=environment,
            start_new_session=True,
        )
        assert self._process.stdin and self._process.stdout
        self._in, self._out = self._process.stdin, self._process.stdout
        for pipe in (self._in, self._out):
            os.set_blocking(pipe.fileno(), False)
        self._rest = b""
        self._lines: deque[bytes] = deque()
        self._chatter: deque[str] = deque(maxlen=_LINES)
        self._to_send = b""

    def ask(self, message: Mapping[str, Any] | None, fits: Callable[[Answer], bool], timeout_s: float) -> Answer:
        """Send a message (None: nothing) and return the first answer that fits; other answers are dropped.

        Raises WorkerDiedError and WorkerLateError.
        """
        if message is not None:
            self._to_send += json.dumps(message, ensure_ascii=False).encode() + b"\n"
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._out, selectors.EVENT_READ)
            if self._to_send:
                waiting.register(self._in, selectors.EVENT_WRITE)
            while True:
                while self._lines:
                    answer = self._parsed(self._lines.popleft())
                    if answer is not None and fits(answer):
                        return answer
                left = deadline - time.monotonic()
                if left <= 0:
                    raise WorkerLateError(f"no answer in {timeout_s:g} s{self._last_words()}")
                for ready, _ in waiting.select(left):
                    if ready.fileobj is self._in:
                        self._send(waiting)
                    else:
                        self._receive()

    def close(self) -> None:
        """Let the process end by closing its standard input; kill it if it does not end within 10 s."""
        with suppress(OSError):
            self._in.close()
        # Wait without reaping: as long as the process is a zombie, its id is that of its group and of no other.
        with suppress(ChildProcessError):
            deadline = time.monotonic() + _PATIENCE_S
            pause = 0.002
            while time.monotonic() < deadline and not self._ended():
                time.sleep(pause)
                pause = min(2 * pause, 0.1)
        self.kill()

    def kill(self) -> int:
        """Kill the process and all that it started; return its exit status."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for pipe in (self._in, self._out):
            with suppress(OSError):
                pipe.close()
        return self._process.returncode

    def _ended(self) -> bool:
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _send(self, waiting: selectors.BaseSelector) -> None:
        try:
            self._to_send = self._to_send[os.write(self._in.fileno(), self._to_send) :]
        except BlockingIOError:
            return
        except OSError:
            # It no longer reads. The end of its output will say so.
            self._to_send = b""
        if not self._to_send:
            waiting.unregister(self._in)

    def _receive(self) -> None:
        try:
            data = os.read(self._out.fileno(), 1 << 16)
        except BlockingIOError:
            return
        if not data:
            raise WorkerDiedError(self._obituary())
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-MOST_LINE:]
        self._lines.extend(lines)

    def _parsed(self, line: bytes) -> Answer | None:
        before, found, text = line.rpartition(PREFIX)
        if found:
            try:
                answer = json.loads(text)
            except ValueError:
                answer = None
            if isinstance(answer, dict):
                return answer
        said = (before if found else line).decode(errors="replace").strip()
        if said:
            self._chatter.append(said)
        return None

    def _obituary(self) -> str:
        deadline = time.monotonic() + _AFTER_OUTPUT_S
        with suppress(ChildProcessError):
            # Its output ends a moment before it does.
            while not self._ended() and time.monotonic() < deadline:
                time.sleep(0.005)
        closed = not self._ended()
        words, status = self._last_words(), self.kill()
        if closed:
            return f"closed its standard output{words}"
        with suppress(ValueError):
            if status < 0:
                return f"was killed by {signal.Signals(-status).name}{words}"
        return f"ended with exit status {status}{words}"

    def _last_words(self) -> str:
        """Return the last lines of its standard error, otherwise of its output, as the end of a message."""
        size = os.fstat(self._errors.fileno()).st_size
        text = os.pread(self._errors.fileno(), _TAIL, max(0, size - _TAIL)).decode(errors="replace")
        # A progress bar writes over its line.
        lines = [line.rpartition("\r")[2].strip() for line in text.splitlines()]
        last = [line for line in lines if line][-_LINES:] or list(self._chatter)
        return f"; it said: {' | '.join(last)}" if last else ""
