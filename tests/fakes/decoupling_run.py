"""Forks runs of `decouple` with scripted stages, each of which may kill itself at its nth change on the disk.

python -m fakes.decoupling_run < lines of "CORPUS<tab>MODEL<tab>OUT<tab>KILL_AT" (0: never); prints each run's exit code
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

SETTINGS = ["engine.executor=inline", "unit=3", "pairing.held_out=0", "pairing.length=3"]


def main() -> None:
    """Fork a run for each line."""
    for name in ("pyarrow.parquet", "pyarrow.compute", "duckdb", "soundfile", "soxr", "torch", "scipy.sparse"):
        import_module(name)
    run = import_module("pipeline.synthesis.decouple")
    settings: Any = import_module("pipeline.synthesis.settings")
    settings.GROUPS = import_module("fakes.scripted_speech").GROUPS
    for line in sys.stdin:
        corpus, model, out, kill_at = line.rstrip("\n").split("\t")
        pid = os.fork()
        if pid == 0:
            _child(run, settings, corpus, model, out, int(kill_at))
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _child(run: Any, settings: Any, corpus: str, model: str, out: str, kill_at: int) -> None:
    done = 0

    def killing(honest: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal done
            done += 1
            if done == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return honest(*arguments, **named)

        return call

    os.replace, os.link = killing(os.replace), killing(os.link)
    Path.replace = killing(Path.replace)  # type: ignore[method-assign]
    status = 1
    try:
        run.decouple(corpus, model, out, settings.load_decouple_settings(None, SETTINGS))
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
