"""Scoring in a process that kills itself at its nth write of rows (0: never): python -m fakes.scoring_run RUN KILL_AT"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from evaluation.metrics import METRICS
from evaluation.run import rescore
from evaluation.runs import rows, score
from evaluation.runs.folder import open_run


def main() -> None:
    """Score with a metric and one that uses it."""
    METRICS.update({"peak": "toy_runs:Peak", "double": "toy_runs:DoublePeak"})
    score.BATCH = 2
    place, kill_at = Path(sys.argv[1]), int(sys.argv[2])
    module: Any = rows
    honest, done = module.write_atomically, 0

    def killing(*arguments: Any) -> None:
        nonlocal done
        done += 1
        if done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        honest(*arguments)

    module.write_atomically = killing
    rescore(open_run(place), ["double"])


if __name__ == "__main__":
    main()
