"""Shared code of both sides: one JSON request per line on standard input, one JSON answer per line on standard output."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Case = Callable[[dict[str, Any]], float | None]


def peak_rss_mb() -> float:
    """Return the peak resident set of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def current_rss_mb() -> float:
    """Return the current resident set, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def timed(work: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def answer(cases: dict[str, Case]) -> None:
    """Serve requests `{"case": name, ...}` until end of file; a case returns seconds (or None if it cannot be done)."""
    out = sys.stdout
    sys.stdout = sys.stderr  # a library's output must not get between the answers
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply: dict[str, Any] = {"value": cases[request["case"]](request)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        reply["peak_rss_mb"] = peak_rss_mb()
        out.write(json.dumps(reply) + "\n")
        out.flush()
