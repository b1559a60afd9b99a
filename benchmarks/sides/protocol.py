"""What both sides share: one JSON request a line on standard input, one JSON answer a line on standard output."""

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
    """The highest resident set this process had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def current_rss_mb() -> float:
    """The resident set now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def timed(work: Callable[[], object]) -> float:
    """Seconds one call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def answer(cases: dict[str, Case]) -> None:
    """Serve requests `{"case": name, ...}` until end of file; a case returns seconds (or None where it cannot be done)."""
    out = sys.stdout
    sys.stdout = sys.stderr  # nothing a library prints may get between the answers
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply: dict[str, Any] = {"value": cases[request["case"]](request)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        reply["peak_rss_mb"] = peak_rss_mb()
        out.write(json.dumps(reply) + "\n")
        out.flush()
