"""How many files a reader of one training step has to open."""

from __future__ import annotations

from pathlib import Path

import pytest
from step_files import files_of_step
from train_runs import Runs

from trainer.runtime.prefetch import Prefetcher

STEP = 8
"""By then every clip has been encoded."""


def test_a_step_enters_few_files(runs: Runs, tmp_path: Path) -> None:
    """Rows, samples and the step itself; it was 51 files."""
    found = files_of_step(runs.config(tmp_path / "out"), STEP)
    assert "trainer/loop.py" in found and "voxcpm/model/backbone.py" in found and "trainer/data/samples.py" in found
    assert len(found) <= 30, found


def test_a_step_whose_samples_are_made_in_a_thread_enters_few_files(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: what is left is the model, the optimizer, and the record of the step."""
    monkeypatch.setattr("trainer.loop.Prefetcher", lambda _: Prefetcher(in_background=True))
    found = files_of_step(runs.config(tmp_path / "out"), STEP)
    assert "trainer/loop.py" in found and "trainer/data/rows.py" not in found
    assert len(found) <= 22, found
