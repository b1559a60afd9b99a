"""Requests to stop: kept until the run can look at them, and insisted on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.processes import PATIENCE_S
from train_runs import REPOSITORY, Runs, losses

from trainer import loop
from trainer.config import TrainConfig
from trainer.model.build import build as build_trainee
from trainer.run import train
from trainer.runtime.stop_signal import ask_to_stop, flag_on_signal

HANGS_IN_PYTHON = "threading.Event().wait()"
# Both interrupts arrive while Python's handlers cannot run: they run once for the two, and then the main thread hangs.
HANGS_AFTER_BOTH = """
    libc.pthread_mutex_timedlock(lock, (c_long * 2)(int(time.time()) + 2, 0))
    threading.Event().wait()
"""
# An interrupt that comes before the wait begins is passed over: it is the thread that must end this.
HANGS_OUTSIDE = """
    while True:
        with suppress(KeyboardInterrupt):
            libc.pthread_mutex_lock(lock)
"""
# A lock of C's is waited for as torch waits for another rank: without Python, and no signal ends it.
SCRIPT = """
import threading, time
from contextlib import suppress
from ctypes import CDLL, c_long, create_string_buffer
libc, lock = CDLL(None), create_string_buffer(64)
libc.pthread_mutex_lock(lock)
from trainer.runtime.stop_signal import flag_on_signal
with flag_on_signal() as asked:
    print("ready", flush=True)
    {hang}
"""


@pytest.fixture
def hanging(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A process that hangs inside of `flag_on_signal`."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(hang=request.param)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def interrupt(process: subprocess.Popen[str]) -> str:
    """Ctrl-C; the line of standard error that answers it."""
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    return next(line for line in process.stderr if line.strip())


@pytest.mark.kill
@pytest.mark.parametrize("hanging", [HANGS_IN_PYTHON, HANGS_AFTER_BOTH], indirect=True, ids=["python", "both at once"])
def test_a_second_interrupt_ends_a_step_that_hangs(hanging: subprocess.Popen[str]) -> None:
    assert "Ctrl-C again ends the run now" in interrupt(hanging)
    wait_until_taken(hanging)
    assert hanging.poll() is None, "the first one waits for the step"
    hanging.send_signal(signal.SIGINT)
    _, said = hanging.communicate(timeout=PATIENCE_S)
    assert "KeyboardInterrupt" in said and hanging.returncode != 0


@pytest.mark.kill
@pytest.mark.parametrize("hanging", [HANGS_OUTSIDE], indirect=True)
def test_a_third_interrupt_ends_a_run_that_hangs_outside_of_python(hanging: subprocess.Popen[str]) -> None:
    """As in an exchange with a rank that is gone: Python's own handlers never run."""
    assert "stopping" in interrupt(hanging)
    for _ in range(2):
        assert hanging.poll() is None
        hanging.send_signal(signal.SIGINT)
        wait_until_taken(hanging)
    assert hanging.wait(PATIENCE_S) == 128 + signal.SIGINT


def wait_until_taken(process: subprocess.Popen[str]) -> None:
    """Wait while a SIGINT is pending: the kernel merges two that wait into one."""
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        if not int(fields.get("ShdPnd", "0").strip(), 16) >> (signal.SIGINT - 1) & 1:
            return


def test_a_stop_that_comes_while_the_run_is_built_is_kept(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(config: TrainConfig, *arguments: object) -> object:
        ask_to_stop()
        return build_trainee(config, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "build", build)
    config = runs.config(tmp_path / "out")
    result = train(config)
    assert result.stopped_early and result.steps == 0
    monkeypatch.undo()
    assert train(config).steps == 8, "it is forgotten when the run has stopped"
    train(runs.config(tmp_path / "unbroken"))
    assert losses(tmp_path / "out") == losses(tmp_path / "unbroken")


def test_handlers_are_those_from_before_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with flag_on_signal() as asked:
        assert not asked()
        os.kill(os.getpid(), signal.SIGINT)
        assert asked()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(-1) == -1
