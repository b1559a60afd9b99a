"""Run operations one after the other, each in a fresh process, and print what each took."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scale_parts.kinds import Kind
from scale_parts.operations import OPERATIONS
from scale_parts.table import HEAD, Found, row, title

_CHILD = Path(__file__).with_name("child.py")


def measure(
    made: Path,
    kind: Kind,
    names: Sequence[str],
    limit_s: float,
    log: Path | None,
    before: Mapping[tuple[str, str], Found],
) -> list[Found]:
    """Measure operations on a linked copy of the corpus `made`; print a row and append a JSON line for each to `log`.

    The copy is made once and stays: what an operation needs is prepared again before it. limit_s: seconds for one process.
    """
    work = linked_copy(made)
    print(f"\n{title(kind)}; {os.cpu_count()} cores\n\n{HEAD}", flush=True)
    measured = []
    for name in names:
        if kind.drawn and OPERATIONS[name].own_rows:
            continue
        found: dict[str, Any] = {"corpus": kind.name, "operation": name}
        found |= {"at": datetime.now(UTC).isoformat(timespec="seconds"), **run_one(name, work, made, kind, limit_s)}
        measured.append(found)
        print(row(found, before.get((kind.name, name))), flush=True)
        if log is not None:
            with log.open("a", encoding="utf-8") as sink:
                sink.write(json.dumps(found) + "\n")
    return measured


def linked_copy(made: Path) -> Path:
    """Return a copy of a corpus whose files are links to those of the corpus: writers replace files, they never change them."""
    work = made.with_name(f"{made.name}-work")
    if not work.is_dir():
        draft = made.with_name(f"{made.name}-draft")
        shutil.rmtree(draft, ignore_errors=True)
        subprocess.run(["cp", "-al", made, draft], check=True)
        draft.rename(work)
    return work


def run_one(name: str, work: Path, made: Path, kind: Kind, limit_s: float) -> dict[str, Any]:
    """Return what an operation took, or how it failed: `stopped_s`, or the last line of its error."""
    _, failed = _process(["prepare", name, work, made, kind.name])
    if failed:
        return {"failed": f"prepare: {failed}"}
    # What else the machine does decides how far wall and processor seconds are apart.
    load = {"load": round(os.getloadavg()[0], 1)}
    try:
        said, failed = _process(["run", name, work, made, kind.name], limit_s)
    except _StoppedError as stopped:
        return load | {"stopped_s": limit_s, "cpu_s": stopped.cpu_s, "peak_mb": stopped.peak_mb, "parts": {}}
    return {"failed": failed} if failed else load | json.loads(said.splitlines()[-1])


class _StoppedError(Exception):
    """A process ran longer than it may, and was killed."""

    def __init__(self, process: int) -> None:
        """process: its id, before it is killed."""
        super().__init__(process)
        ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:15]
        self.cpu_s = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
        self.peak_mb = int(found[1]) / 1e3 if found else 0.0


def _process(arguments: Sequence[object], limit_s: float | None = None) -> tuple[str, str]:
    """Return (output, error or ""). Raises _StoppedError."""
    command = [sys.executable, str(_CHILD), *map(str, arguments)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        said, wrong = child.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        stopped = _StoppedError(child.pid)
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        raise stopped from None
    lines = [line for line in wrong.splitlines() if line.strip()]
    for line in lines:
        if line.startswith("# ") and "run" in arguments:
            print(line, file=sys.stderr, flush=True)
    return said, (lines[-1] if lines else f"exit code {child.returncode}") if child.returncode else ""
