"""Runs of `speak --table` that kill themselves at chosen writes, in forks of one process that has loaded the model.

    python -m fakes.speaking_table MODEL TABLE SETTINGS KILLS

SETTINGS: a JSON list of overrides. KILLS: JSON, the folder of the results -> a number for each run into it. The run ends with
SIGKILL at its write of that number; 0 lets it end. Prints the exit statuses of the runs in the same form.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from pipeline.synthesis.table.settings import load_speak_settings
from pipeline.synthesis.table.speak_table import speak_table
from voxcpm import VoxCPM

WRITES = ("replace", "fsync", "rename", "link")


def die_at(number: int) -> None:
    """Kill this process at its n-th write: before it if the number is odd, otherwise after it."""
    seen = 0

    def counted(honest: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any, **options: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == number and number % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            done = honest(*arguments, **options)
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return write

    for name in WRITES:
        setattr(os, name, counted(getattr(os, name)))


def main() -> None:
    model, table, overrides, kills = sys.argv[1:]
    settings = load_speak_settings(None, json.loads(overrides))
    loaded = VoxCPM.from_pretrained(model, load_denoiser=False, device="cpu")
    VoxCPM.from_pretrained = lambda *arguments, **options: loaded  # type: ignore[method-assign]

    def run(out: str, number: int) -> int:
        child = os.fork()
        if not child:
            status = 1
            try:
                if number:
                    die_at(number)
                speak_table(table, model, out, settings=settings)
                status = 0
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    ends = {out: [run(out, number) for number in numbers] for out, numbers in json.loads(kills).items()}
    print(json.dumps(ends))


if __name__ == "__main__":
    main()
