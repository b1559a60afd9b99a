"""One operation in this process: `python child.py prepare|run NAME CORPUS MADE KIND`. Prints a JSON line with what it took."""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:1] = [str(ROOT), str(ROOT / "benchmarks")]

from scale_parts.kinds import KINDS  # noqa: E402
from scale_parts.operations import OPERATIONS  # noqa: E402


def _processor_s() -> float:
    """Return the processor seconds of this process and of its children that have ended."""
    usage = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in usage)


def _peak_mb() -> float:
    """Return the largest memory of this process, or of a child that has ended, in MB."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    own = int(found[1]) if found else 0
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1e3


def main() -> None:
    """Do what the command line says."""
    what, name, work, made, kind = sys.argv[1:]
    operation = OPERATIONS[name]
    if what == "prepare":
        if operation.prepare:
            operation.prepare(Path(work), Path(made), KINDS[kind])
        return
    before, started = _processor_s(), time.perf_counter()
    parts = operation.run(Path(work))
    took = {"wall_s": time.perf_counter() - started, "cpu_s": _processor_s() - before, "peak_mb": _peak_mb()}
    print(json.dumps({name: round(value, 4) for name, value in took.items()} | {"parts": parts}))


if __name__ == "__main__":
    main()
