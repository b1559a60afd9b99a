"""Calls of the trainer in processes forked from one that has imported it: an import takes 6 to 8 s of CPU, and no test needs it."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from pathlib import Path

import trainer

REPOSITORY = Path(__file__).resolve().parents[2]
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["voxmill.cli", "trainer.run", "torch._dynamo", "torch.utils.tensorboard"])


class Forked:
    """A call in one process, used as a `subprocess.Popen`; what it says goes to `log`."""

    def __init__(
        self, log: Path, environment: Mapping[str, str], call: Callable[..., object], *arguments: object
    ) -> None:
        _start_server()
        self._log = log
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        self._process = _FORKS.Process(target=_become, args=(log, environment, call, *arguments), daemon=True)
        self._process.start()

    def poll(self) -> int | None:
        """Exit status, the negative number of the signal that ended it, or None while it runs."""
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        """The same."""
        return self.poll()

    def send_signal(self, number: int) -> None:
        """Send a signal to it, if it still runs."""
        if self.returncode is None and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, once it has ended; raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("voxmill train", timeout or 0.0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """What it has said, once it has ended."""
        self.wait(timeout)
        return self._log.read_text(encoding="utf-8"), None


def _start_server() -> None:
    """Start the process that is forked, with this repository before any installed one; does nothing the second time."""
    before = os.environ.copy()
    os.environ |= {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")]), "OMP_NUM_THREADS": "1"}
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


def _become(log: Path, environment: Mapping[str, str], call: Callable[..., object], *arguments: object) -> None:
    """In the forked process: take the environment, and call."""
    assert Path(str(trainer.__file__)).is_relative_to(REPOSITORY)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(REPOSITORY)
    with log.open("wb") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    call(*arguments)


def voxmill_train(config: Path) -> None:
    """The command."""
    sys.argv = ["voxmill", "train", str(config)]
    from voxmill import cli

    cli.main()
