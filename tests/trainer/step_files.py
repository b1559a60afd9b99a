"""Which of our files one training step enters.

python tests/trainer/step_files.py CORPUS CHECKPOINT    # the files of a step of a toy run, and those of its samples, as entered
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from train_runs import REPOSITORY, Runs

from trainer.config import TrainConfig
from trainer.result import Progress
from trainer.run import train

PACKAGES = ("trainer", "voxcpm", "catalogs")


def files_of_step(config: TrainConfig, step: int) -> tuple[list[str], list[str]]:
    """The files of our packages that a profiler sees: between the reports of two steps in this thread, and from two reports
    earlier on in the thread that makes the samples."""
    here, ahead = dict[str, None](), dict[str, None]()
    reported = 0

    def enters(found: dict[str, None], first: int, last: int) -> Callable[[FrameType, str, Any], None]:
        def look(frame: FrameType, event: str, _: Any) -> None:
            path = Path(frame.f_code.co_filename)
            if event == "call" and first <= reported < last and path.is_relative_to(REPOSITORY):
                name = path.relative_to(REPOSITORY).as_posix()
                if name.startswith(PACKAGES):
                    found[name] = None

        return look

    def on_step(progress: Progress) -> None:
        nonlocal reported
        reported = progress.step
        sys.setprofile(enters(here, step - 1, step) if reported == step - 1 else None)

    of_samples = enters(ahead, step - 2, step)

    def in_thread(*event: Any) -> None:
        if threading.current_thread().name.startswith("samples"):
            of_samples(*event)

    threading.setprofile(in_thread)
    try:
        train(config, on_step)
    finally:
        threading.setprofile(None)
        sys.setprofile(None)
    return list(here), list(ahead)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(sys.argv[1]), Path(sys.argv[2]), Path(folder) / "latents")
        for entered in files_of_step(runs.config(Path(folder) / "out"), 8):
            print(*entered, f"{len(entered)} files", sep="\n")
