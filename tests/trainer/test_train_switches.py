"""Switches that change how a step is computed, not what comes out: recomputing and compiling."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from train_runs import Runs, losses

from trainer.run import train

PHASE = {"steps": 3}


@pytest.fixture(scope="module")
def plain(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("plain") / "out"
    train(runs.config(output, PHASE))
    return output


def test_recomputing_activations_changes_nothing(runs: Runs, plain: Path, tmp_path: Path) -> None:
    train(runs.config(tmp_path / "out", PHASE, recompute=True))
    assert losses(tmp_path / "out") == losses(plain)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
@pytest.mark.skipif(
    os.environ.get("VOXMILL_TEST_COMPILE") != "1",
    reason="compiling takes minutes on two CPU cores (135 s of one): set VOXMILL_TEST_COMPILE=1",
)
def test_compiling_blocks_changes_rounding_only(runs: Runs, plain: Path, tmp_path: Path) -> None:
    train(runs.config(tmp_path / "out", PHASE, compile=True))
    mine, theirs = losses(tmp_path / "out"), losses(plain)
    for step in theirs:
        assert mine[step] == pytest.approx(theirs[step], rel=1e-3)
