"""`launch: ray`: the same run, placed by Ray."""

from __future__ import annotations

from pathlib import Path

import pytest
from train_runs import Runs, losses

from trainer.config import TrainError
from trainer.loop import train
from trainer.resume import latest
from trainer.signals import ask_to_stop


@pytest.mark.usefixtures("ray_node")
def test_two_workers_are_the_same_run_as_one_rank(runs: Runs, tmp_path: Path) -> None:
    phase = {"steps": 4}
    said: list[str] = []
    result = train(runs.config(tmp_path / "ray", phase, launch="ray", workers=2, parallel="fsdp"), said.append)
    train(runs.config(tmp_path / "alone", phase), lambda _: None)
    mine, theirs = losses(tmp_path / "ray"), losses(tmp_path / "alone")
    assert result.steps == 4 and mine.keys() == theirs.keys()
    for step in theirs:
        assert mine[step] == pytest.approx(theirs[step], rel=1e-5)
    assert any("step 4/4" in line for line in said)
    assert (tmp_path / "ray" / "latest" / "model.safetensors").is_file()


@pytest.mark.usefixtures("ray_node")
def test_asked_to_stop_all_workers_save_and_end(runs: Runs, tmp_path: Path) -> None:
    def say(line: str) -> None:
        if line.startswith("step 1/"):
            ask_to_stop()  # as SIGTERM to the driver does

    config = runs.config(tmp_path / "out", {"steps": 5000}, launch="ray", workers=2, save_every=10_000)
    result = train(config, say)
    assert result.stopped_early and 1 <= result.steps < 5000
    saved = latest(tmp_path / "out")
    assert saved is not None and saved.step == result.steps and saved.resume.is_dir() and saved.folder is not None


@pytest.mark.usefixtures("ray_node")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"workers": 64, "phase": {"rows": 64}}, r"64 ranks need 64 CPU, the cluster has 4: set workers=4"),
        ({"workers": 2, "phase": {"where": "duration_s > 1000"}}, r"no kept segment"),
    ],
)
def test_what_a_cluster_cannot_do_is_one_line(runs: Runs, tmp_path: Path, changes: dict, words: str) -> None:  # type: ignore[type-arg]
    others = {name: value for name, value in changes.items() if name != "phase"}
    with pytest.raises(TrainError, match=words) as refused:
        train(runs.config(tmp_path / "out", changes["phase"], launch="ray", **others), lambda _: None)
    assert "\n" not in str(refused.value)
