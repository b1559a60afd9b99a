"""A flow in real processes that is killed at random moments ends in the state of one that was left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from flow_helpers import changed, flow, loop

from catalogs.settings import dump_settings
from voxmill.flow.processes import alone
from voxmill.flow.settings import FlowError, FlowSettings
from voxmill.flow.state import read_state

pytestmark = pytest.mark.kill


def started(settings: FlowSettings, folder: Path) -> subprocess.Popen[str]:
    """`voxmill run` in a process."""
    path = folder.with_suffix(".yaml")
    path.write_text(dump_settings(settings))
    command = [sys.executable, "-m", "voxmill", "run", str(path), "--folder", str(folder)]
    # The stand-in steps are imported by the process, and by those that it starts.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def slow_loop() -> dict[str, Any]:
    """Steps of several parts, so that kills fall within them."""
    steps = loop()
    for name in ("prepare", "stage1", "decouple", "stage2"):
        steps = changed(steps, name, parts=3, pause_s=0.1)
    return steps


def made(folder: Path) -> dict[str, Any]:
    """Files and states without what differs from run to run."""
    files = {
        str(path.relative_to(folder)): path.read_text()
        for name in slow_loop()
        for path in (folder / name).rglob("*")
        if path.is_file()
    }
    states = {}
    for name in slow_loop():
        state = json.loads((folder / "state" / f"{name}.json").read_text())
        states[name] = {key: state[key] for key in ("status", "fingerprint", "digest", "line")}
    return {"files": files, "states": states}


def wait_until_alone(folder: Path) -> None:
    """Wait until the step of a killed run has ended, too."""
    while True:
        try:
            with alone(folder):
                return
        except FlowError:
            time.sleep(0.02)


KILLS = 4


def test_kills_at_random_moments(tmp_path: Path, dice: random.Random) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = started(flow(whole, slow_loop()), whole)
    process.communicate()
    assert process.returncode == 0
    for _ in range(KILLS):
        process = started(flow(killed, slow_loop()), killed)
        # Within a step, once it has begun; it may have been done before.
        at = dice.choice(list(slow_loop()))
        while process.poll() is None and not _is_running(killed, at):
            time.sleep(0.005)
        time.sleep(dice.uniform(0, 0.3))
        process.kill()
        process.communicate()
        wait_until_alone(killed)
    process = started(flow(killed, slow_loop()), killed)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert made(killed) == made(whole)
    assert not (killed / "superseded").exists()


def _is_running(folder: Path, step: str) -> bool:
    state = read_state(folder, step)
    return state is not None and state.status == "running"


def test_a_killed_step_is_named_and_continued(tmp_path: Path) -> None:
    steps = {"a": {"kind": "fakes.flow_steps:Make", "value": "x", "parts": 2, "pause_s": 30.0}}
    process = started(flow(tmp_path / "f", steps), tmp_path / "f")
    child = _child_of(process, tmp_path / "f")
    os.kill(child, signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1 and "its process was killed by signal 9, perhaps for memory" in output
    quick = flow(tmp_path / "f", {"a": {**steps["a"], "pause_s": 0.0}})
    again = started(quick, tmp_path / "f")
    output, _ = again.communicate(timeout=300)
    assert again.returncode == 0 and "continues: it failed" in output


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_are_passed_on(number: signal.Signals, status: int, tmp_path: Path) -> None:
    steps = {"a": {"kind": "fakes.flow_steps:Make", "value": "x", "parts": 2, "pause_s": 30.0}}
    process = started(flow(tmp_path / "f", steps), tmp_path / "f")
    _child_of(process, tmp_path / "f")
    process.send_signal(number)
    output, _ = process.communicate(timeout=300)
    state = read_state(tmp_path / "f", "a")
    assert process.returncode == status and state is not None and state.status == "stopped"
    if number == signal.SIGINT:
        assert output.rstrip().endswith("Stopped. Run the same command to resume.")


def _child_of(process: subprocess.Popen[str], folder: Path) -> int:
    """Wait until the step is at work, and return its process."""
    lock = folder / ".lock-step"
    while True:
        if (folder / "a").is_dir() and lock.is_file() and (text := lock.read_text().strip()).isdigit():
            return int(text)
        assert process.poll() is None
        time.sleep(0.02)
