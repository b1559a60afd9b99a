"""How many files a reader of one training step has to open."""

from __future__ import annotations

from pathlib import Path

from step_files import files_of_step
from train_runs import Runs

STEP = 8
"""By then every clip has been encoded."""


def test_a_step_enters_few_files(runs: Runs, tmp_path: Path) -> None:
    """The model, the optimizer and the record of the step in one thread, the step's samples in another. It was 51 files in one.

    One of the files is that of the lineage, which notes the samples of each step."""
    step, ahead = files_of_step(runs.config(tmp_path / "out"), STEP)
    assert {"trainer/loop.py", "trainer/step.py", "voxcpm/model/backbone.py"} <= set(step)
    assert {"trainer/data/rows.py", "trainer/data/samples.py", "voxcpm/sequence/training_rows.py"} <= set(ahead)
    assert len(step) <= 23, step
    assert len(ahead) <= 14, ahead
