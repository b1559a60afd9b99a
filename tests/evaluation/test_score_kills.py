"""Scoring is killed with SIGKILL at chosen writes and run again: the rows are those of an unbroken run, and none is there twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fakes.processes import PATIENCE_S
from toy_runs import DoublePeak, Hum, Peak, toy_items, toy_settings

from evaluation.metrics.base import Metric
from evaluation.runs.folder import create_run, open_run
from evaluation.runs.generate import generate
from evaluation.runs.score import table_of

pytestmark = pytest.mark.kill

REPOSITORY = Path(__file__).resolve().parents[2]
ITEMS = 7


def spoken(folder: Path) -> Path:
    system = Hum()
    generate(create_run(folder, toy_settings(system), toy_items(ITEMS), [0]), system)
    return folder


def scored(run: Path, kill_at: int) -> int:
    paths = os.pathsep.join(str(REPOSITORY / part) for part in (".", "tests", "tests/evaluation"))
    done = subprocess.run(
        [sys.executable, "-m", "fakes.scoring_run", str(run), str(kill_at)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode in (0, -9), done.stderr[-2000:]
    return done.returncode


def rows(root: Path) -> dict[str, dict[tuple[str, int], dict[str, object]]]:
    metrics: list[Metric] = [Peak(), DoublePeak()]
    by_name = {metric.name: metric for metric in metrics}
    return {metric.name: table_of(open_run(root), metric, by_name).by_key() for metric in metrics}


def test_killed_scoring_is_continued(tmp_path: Path) -> None:
    whole, broken = spoken(tmp_path / "whole"), spoken(tmp_path / "broken")
    assert scored(whole, 0) == 0
    # Four writes of `peak` in batches of two, then those of `double`.
    assert [scored(broken, kill_at) for kill_at in (2, 4)] == [-9, -9]
    assert scored(broken, 0) == 0
    assert rows(broken) == rows(whole)
    assert {name: len(found) for name, found in rows(whole).items()} == {"peak": ITEMS, "double": ITEMS}
    for table in (broken / "rows").iterdir():
        assert sum(pq.read_table(part).num_rows for part in table.glob("part-*.parquet")) == ITEMS
