"""Kill a real flow once inside each step and at random moments, and compare its end with that of an unbroken run.

    python -m benchmarks.flow_kills OUT [--flow flow-toy] [--seed 1] [--random 3]

OUT/whole is left alone, OUT/killed is killed by SIGKILL: the step's process and the flow's. These must be equal: the units and
segments of corpora, descriptions, the weights of codecs and models (fingerprints of the steps that read them, and digests).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from voxmill.flow.build import open_flow
from voxmill.flow.settings import load_flow
from voxmill.flow.state import read_state

_LOOK_S = 0.02


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both flows; print the kills and the differences; return 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--flow", default="flow-toy")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--random", type=int, default=3, help="kills at random moments, beside one in each step")
    given = parser.parse_args(arguments)
    rng = random.Random(given.seed)
    whole, killed = given.out / "whole", given.out / "killed"
    given.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    _start(given.flow, whole).wait()
    print(f"unbroken: {time.monotonic() - started:.0f} s", flush=True)
    _, steps = open_flow(load_flow(given.flow, folder=whole))
    for step in steps:
        _kill_within(given.flow, killed, step, rng, _seconds(whole, step))
    for step in rng.sample(list(steps), given.random):
        _kill_again(given.flow, killed, step, rng, _seconds(whole, step))
    status = _start(given.flow, killed).wait()
    found = differences(whole, killed, list(steps))
    print(f"status {status}; differences: {found or 'none'}")
    return int(bool(found) or status != 0)


def _seconds(folder: Path, step: str) -> float:
    state = read_state(folder, step)
    return state.seconds if state else 0.0


def _start(flow: str, folder: Path) -> subprocess.Popen[bytes]:
    with (folder.parent / f"{folder.name}.log").open("ab") as log:
        command = [sys.executable, "-m", "voxmill", "run", flow, "--folder", str(folder)]
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def _kill_within(flow: str, folder: Path, step: str, rng: random.Random, seconds: float) -> None:
    """Kill the flow once while the step runs, after a random share of the time that it takes."""
    process = _start(flow, folder)
    while process.poll() is None and not _runs(folder, step):
        time.sleep(_LOOK_S)
    time.sleep(rng.uniform(0.05, 0.5) * seconds)
    within = _runs(folder, step) and process.poll() is None
    _kill(process, folder)
    print(f"{step}: killed {'within' if within else 'after'} it", flush=True)


def _kill_again(flow: str, folder: Path, step: str, rng: random.Random, seconds: float) -> None:
    """Make a finished step due again, as after a kill before its state was written, and kill it once more."""
    path = folder / "state" / f"{step}.json"
    if path.is_file():
        state = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(state | {"status": "running"}), encoding="utf-8")
    _kill_within(flow, folder, step, rng, seconds)


def _runs(folder: Path, step: str) -> bool:
    state = read_state(folder, step)
    return state is not None and state.status == "running" and (folder / ".lock-step").is_file()


def _kill(process: subprocess.Popen[bytes], folder: Path) -> None:
    lock = folder / ".lock-step"
    text = lock.read_text().strip() if lock.is_file() else ""
    if process.poll() is None:
        if text.isdigit() and _is_step(int(text), folder):
            with suppress(ProcessLookupError):
                os.kill(int(text), signal.SIGKILL)
        process.kill()
    process.wait()


def _is_step(pid: int, folder: Path) -> bool:
    """Return True if a process is a step of this flow: the number may be that of another process by now."""
    with suppress(OSError):
        return str(folder.absolute()) in Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    return False


def differences(whole: Path, killed: Path, steps: Sequence[str]) -> list[str]:
    """Return what differs between two flows: states, fingerprints, digests of weights, segments."""
    found = []
    for step in steps:
        first, second = read_state(whole, step), read_state(killed, step)
        if first is None or second is None or second.status != "done":
            found.append(f"{step}: {second.status if second else 'not begun'}")
            continue
        if first.fingerprint != second.fingerprint:
            changed = [name for name in first.parts if first.parts[name] != second.parts.get(name)]
            found.append(f"{step}: other {', '.join(changed)}")
        if first.kind not in ("evaluate", "export") and first.digest != second.digest:
            found.append(f"{step}: another digest")
        if (whole / step / "corpus.json").is_file() and _segments(whole / step) != _segments(killed / step):
            found.append(f"{step}: other segments")
    return found


def _segments(corpus: Path) -> list[object]:
    from catalogs.query.views import query

    return query(corpus, "select segment_id, text, kept from segments order by 1")[1]  # type: ignore[return-value]


if __name__ == "__main__":
    raise SystemExit(main())
