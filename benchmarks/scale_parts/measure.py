"""Run operations one after the other, each in a fresh process, and print what each took."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scale_parts.kinds import Kind
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
    _, failed, _ = _process(["prepare", name, work, made, kind.name], None)
    if failed:
        return {"failed": f"prepare: {failed}"}
    said, failed, peak = _process(["run", name, work, made, kind.name], limit_s)
    if failed is None:
        return {"stopped_s": limit_s, "peak_mb": peak, "parts": {}}
    return {"failed": failed} if failed else json.loads(said.splitlines()[-1])


def _process(arguments: Sequence[object], limit_s: float | None) -> tuple[str, str | None, float]:
    """Return (output, error or "" or None if it was stopped, peak memory in MB if it was stopped)."""
    command = [sys.executable, str(_CHILD), *map(str, arguments)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        said, wrong = child.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        status = Path(f"/proc/{child.pid}/status").read_text()
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        time.sleep(0.1)
        found = re.search(r"VmHWM:\s+(\d+)", status)
        return "", None, int(found[1]) / 1e3 if found else 0.0
    lines = [line for line in wrong.splitlines() if line.strip()]
    for line in lines:
        if line.startswith("# ") and "run" in arguments:
            print(line, file=sys.stderr, flush=True)
    return said, (lines[-1] if lines else f"exit code {child.returncode}") if child.returncode else "", 0.0
