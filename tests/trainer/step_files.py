"""Which of our files one training step enters.

python tests/trainer/step_files.py CORPUS CHECKPOINT    # the files of a step of a toy run, in the order they are entered
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

from train_runs import REPOSITORY, Runs

from trainer.config import TrainConfig
from trainer.result import Progress
from trainer.run import train

PACKAGES = ("trainer", "voxcpm", "catalogs")


def files_of_step(config: TrainConfig, step: int) -> list[str]:
    """The files of our packages that run between the reports of two steps, in this thread, as a profiler sees it."""
    found: dict[str, None] = {}

    def look(frame: FrameType, event: str, _: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(REPOSITORY):
            name = path.relative_to(REPOSITORY).as_posix()
            if name.startswith(PACKAGES):
                found[name] = None

    def on_step(progress: Progress) -> None:
        sys.setprofile(look if progress.step == step - 1 else None)

    try:
        train(config, on_step)
    finally:
        sys.setprofile(None)
    return list(found)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(sys.argv[1]), Path(sys.argv[2]), Path(folder) / "latents")
        entered = files_of_step(runs.config(Path(folder) / "out"), 8)
    print(*entered, f"{len(entered)} files", sep="\n")
