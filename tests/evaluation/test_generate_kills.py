"""Generation is killed with SIGKILL at chosen writes and run again: the rows and the audio are those of an unbroken run."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes.generating_run import SEEDS, TEXTS
from fakes.processes import PATIENCE_S, Process, gone

from evaluation.runs.folder import open_run

pytestmark = pytest.mark.kill

REPOSITORY = Path(__file__).resolve().parents[2]
WORKER = REPOSITORY / "tests" / "fakes" / "speech_worker.py"


def start(run: Path, system: str, options: dict[str, Any], kill_at: int = 0, moment: str = "after") -> int:
    """Run it, and return its exit status."""
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    words = [str(run), system, json.dumps(options), str(kill_at), moment]
    done = subprocess.run(
        [sys.executable, "-m", "fakes.generating_run", *words],
        # What a killed run leaves in the temporary folder goes with the test's.
        env={**os.environ, "PYTHONPATH": paths, "TMPDIR": str(run.parent)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode in (0, -9), done.stderr[-2000:]
    return done.returncode


def takes(run: Path) -> dict[tuple[str, int], tuple[str, str, float]]:
    """Return (status, digest, seconds) of every take. What takes time differs by nature."""
    return {
        key: (row["status"], row["audio_sha256"], row["seconds"])
        for key, row in open_run(run).generated.by_key().items()
    }


def check_same(broken: Path, whole: Path) -> None:
    assert takes(broken) == takes(whole) and len(takes(whole)) == len(TEXTS) * len(SEEDS)
    # Nothing twice, and no audio without a row.
    run = open_run(broken)
    import pyarrow.parquet as pq

    parts = [pq.read_table(part).num_rows for part in run.generated.folder.glob("part-*.parquet")]
    assert sum(parts) == len(TEXTS) * len(SEEDS)
    assert len(list((broken / "audio").rglob("*.flac"))) == len(TEXTS) * len(SEEDS)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> str:
    starts = tmp_path_factory.mktemp("starts") / "starts"
    return "process:" + shlex.join([sys.executable, str(WORKER), "--starts", str(starts)])


@pytest.fixture(scope="module")
def unbroken(worker: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert start(folder, worker, {}) == 0
    return folder


@pytest.mark.parametrize(
    "kills",
    [[(1, "before")], [(2, "after"), (5, "after")], [(6, "before"), (6, "after"), (6, "before")]],
    ids=["at the list", "audio then rows", "three times"],
)
def test_a_killed_run_is_continued(worker: str, unbroken: Path, tmp_path: Path, kills: list[tuple[int, str]]) -> None:
    folder = tmp_path / "broken"
    for kill_at, moment in kills:
        assert start(folder, worker, {}, kill_at, moment) == -9
    assert start(folder, worker, {}) == 0
    check_same(folder, unbroken)
    workers = [Process(int(pid), 0) for pid in Path(shlex.split(worker)[-1]).read_text().split()]
    # A worker ends with its parent: its standard input ends. (An id with start time 0 is that of no process.)
    assert not gone([living for living in map(alive, workers) if living], PATIENCE_S)


def alive(process: Process) -> Process | None:
    """Return the process with its start time, if it is one of ours that still runs."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    found = Process(process.pid, int(fields[19]))
    return found if "speech_worker" in found.title else None


@pytest.mark.slow
def test_a_checkpoint_says_the_same_after_a_kill(golden: Path, tmp_path: Path) -> None:
    system, options = str(golden / "checkpoint"), {"recipe": "plain", "steps": 2, "max_seconds": 0.32, "retry": False}
    assert start(tmp_path / "whole", system, options) == 0
    assert start(tmp_path / "broken", system, options, 7) == -9
    assert start(tmp_path / "broken", system, options) == 0
    check_same(tmp_path / "broken", tmp_path / "whole")
    assert len({digest for _, digest, _ in takes(tmp_path / "whole").values()}) == len(TEXTS) * len(SEEDS)
