"""Processes that run paid passes, forked from one that has imported everything: they start at once, and can be killed.

with Passes() as passes:
    worker = passes.start(corpus, url, prices, cap)     # arguments of fakes.paid_provider
    worker.kill()
    worker.wait()
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import traceback
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType


class Passes:
    """The process that forks. Its children inherit its standard error."""

    def __enter__(self) -> Passes:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-m", "fakes.forked_passes"]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lock = threading.Lock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def start(self, *arguments: object) -> Worker:
        """Start a pass."""
        return Worker(self, int(self.ask("start", *arguments)))

    def ask(self, *words: object) -> str:
        """Send one command and return its answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            self._process.stdin.write("\t".join(map(str, words)) + "\n")
            self._process.stdin.flush()
            return self._process.stdout.readline().strip()


@dataclass
class Worker:
    """One pass."""

    passes: Passes
    pid: int
    code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        if self.code is None:
            said = self.passes.ask("poll", self.pid)
            self.code = int(said) if said else None
        return self.code

    def wait(self) -> int:
        """Wait for its end; return the exit code."""
        if self.code is None:
            self.code = int(self.passes.ask("wait", self.pid))
        return self.code

    def kill(self) -> bool:
        """SIGKILL, if it still runs; return whether it did."""
        if self.poll() is not None:
            return False
        os.kill(self.pid, signal.SIGKILL)
        return self.wait() == -signal.SIGKILL


def main() -> None:
    """Take commands from the standard input until it ends; then kill what still runs."""
    from annotators.providers.http import trusted
    from fakes.paid_provider import run

    for name in (
        "annotators.paid.batches",
        "annotators.paid.paid_pass",
        "anyio._backends._asyncio",
        "anyio.streams.memory",
        "catalogs.corpus.thresholds",
        "difflib",
        "duckdb",
        "h11",
        "httpcore2",
        "pandas",
        "pyarrow.compute",
        "pyarrow.pandas_compat",
        "pyarrow.parquet",
        "soundfile",
        "soxr",
        "yaml",
    ):
        import_module(name)
    trusted()
    running: set[int] = set()
    for line in sys.stdin:
        command, *arguments = line.rstrip("\n").split("\t")
        if command == "start":
            pid = os.fork()
            if pid == 0:
                _child(run, arguments)
            running.add(pid)
            print(pid, flush=True)
            continue
        pid, status = os.waitpid(int(arguments[0]), os.WNOHANG if command == "poll" else 0)
        running.discard(pid)
        print(os.waitstatus_to_exitcode(status) if pid else "", flush=True)
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _child(run: object, arguments: list[str]) -> None:
    code = 1
    try:
        # Its standard output is that of the commands.
        os.dup2(2, 1)
        run(*arguments)  # type: ignore[operator]
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
