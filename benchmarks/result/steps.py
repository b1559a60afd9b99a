"""Steps that are made once: a killed run starts where it was."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from catalogs.files import write_atomically

ROOT = Path(__file__).resolve().parents[2]


class Steps:
    """Finished steps with their minutes and what they found, in a file."""

    def __init__(self, path: Path, now: Callable[[], float] = time.perf_counter) -> None:
        self._path, self._now = path, now
        self.done: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def do(
        self, name: str, work: Callable[[], Mapping[str, Any] | None], options: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return what a step found: from the file if it is finished, otherwise by doing it.

        A step that raises is not finished, and is done again. options: what the step depends on. Raises ValueError if it is
        finished and was done with other ones.
        """
        wanted = json.loads(json.dumps(dict(options or {})))
        if name not in self.done:
            print(f"== {name}", flush=True)
            started = self._now()
            found = dict(work() or {})
            self.done[name] = {
                "minutes": round((self._now() - started) / 60, 2),
                "machine": machine(),
                "options": wanted,
                **found,
            }
            write_atomically(self._path, json.dumps(self.done, indent=1, ensure_ascii=False).encode())
        known = self.done[name].get("options", wanted)  # Files of earlier versions have none.
        other = [
            f"{key} {known.get(key)}, now {wanted.get(key)}"
            for key in {**known, **wanted}
            if known.get(key) != wanted.get(key)
        ]
        if other:
            raise ValueError(
                f"step {name} was done with {', '.join(other)}: give the same again, or another folder than {self._path.parent}"
            )
        return self.done[name]


def machine() -> str:
    """Return the name of the GPU, or of the processor with its cores and the load on them."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []


def voxmill(work: Path, log: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a command of voxmill in the folder of the work, with this checkout's code and one thread."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    print(f"$ voxmill {' '.join(arguments)} (log: {work / log})", flush=True)
    with (work / log).open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "voxmill.cli", *arguments],
            cwd=work,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def wait(*processes: subprocess.Popen[bytes]) -> None:
    """Wait for runs. Raises CalledProcessError if one failed; the others are ended."""
    try:
        for process in processes:
            if process.wait():
                raise subprocess.CalledProcessError(process.returncode, process.args)
    finally:
        end(*processes)


def exit_on_sigterm() -> None:
    """Let SIGTERM raise SystemExit, so that the trainings of this process are ended too: they save first."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def end(*processes: subprocess.Popen[bytes]) -> None:
    """Ask running processes to save and end, and wait until they have."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in processes:
        process.wait()


def run_for(
    processes: Sequence[subprocess.Popen[bytes]], trained: Callable[[], float], seconds: float, pause_s: float = 5.0
) -> None:
    """Let processes run until the first has trained for `seconds`, then ask all to save and end.

    `trained` counts the seconds of earlier runs too: an interrupted step does not begin its time again. Raises
    CalledProcessError if a process fails.
    """
    first = processes[0]
    try:
        while trained() < seconds and first.poll() is None:
            for process in processes:
                if process.poll():
                    raise subprocess.CalledProcessError(process.returncode, process.args)
            time.sleep(pause_s)
    finally:
        end(*processes)
    if first.returncode not in (0, -signal.SIGTERM, 128 + signal.SIGTERM):
        raise subprocess.CalledProcessError(first.returncode, first.args)


def trained_s(run: Path) -> float:
    """Return the seconds that the steps of a run took so far, from its metrics."""
    total = 0.0
    for line in _lines(str(run / "metrics.jsonl")):
        try:
            total += json.loads(line).get("speed/step_s", 0.0)
        except json.JSONDecodeError:  # The last line of a run that is writing it.
            continue
    return total
