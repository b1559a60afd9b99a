"""A run of `evaluation.runs.generate` in a process that kills itself at its nth write to the disk (0: never).

python -m fakes.generating_run RUN SYSTEM OPTIONS KILL_AT BEFORE_OR_AFTER
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation.items import Item
from evaluation.runs import folder, rows
from evaluation.runs import generate as generating
from evaluation.systems import open_system

TEXTS = tuple(f"say number {number}" for number in range(6))
SEEDS = (0, 1)


def main() -> None:
    """Generate; print the statuses."""
    place, specification, options, kill_at, moment = sys.argv[1:]
    generating.ROWS = 3
    done = 0

    def killing(honest: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any) -> None:
            nonlocal done
            done += 1
            if moment == "after":
                honest(*arguments)
            if done == int(kill_at):
                os.kill(os.getpid(), signal.SIGKILL)
            if moment == "before":
                honest(*arguments)

        return write

    for module in (generating, rows, folder):
        module.write_atomically = killing(module.write_atomically)  # type: ignore[attr-defined]
    system = open_system(specification, json.loads(options))
    items = [Item(text, "en") for text in TEXTS]
    run = folder.create_run(Path(place), {"system": system.describe()}, items, SEEDS)
    print(json.dumps(generating.generate(run, system)))
    system.close()


if __name__ == "__main__":
    main()
