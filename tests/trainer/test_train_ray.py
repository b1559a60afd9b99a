"""`launch: ray`: the same run, placed by Ray."""

from __future__ import annotations

import threading
from pathlib import Path
from queue import SimpleQueue

import pytest
from fakes.logs import logged
from train_runs import Runs, losses

from trainer.checkpoint.restore import latest
from trainer.config import TrainError
from trainer.ray_launcher import drained
from trainer.result import Progress
from trainer.run import train
from trainer.runtime.stop_signal import ask_to_stop


@pytest.mark.usefixtures("ray_node")
def test_two_workers_are_the_same_run_as_one_rank(runs: Runs, tmp_path: Path) -> None:
    phase = {"steps": 4}
    said: list[str] = []
    steps: list[Progress] = []
    config = runs.config(tmp_path / "ray", phase, launch="ray", workers=2, parallel="fsdp")
    result = logged(said.append, train, config, steps.append)
    train(runs.config(tmp_path / "alone", phase))
    mine, theirs = losses(tmp_path / "ray"), losses(tmp_path / "alone")
    assert result.steps == 4 and mine.keys() == theirs.keys()
    for step in theirs:
        assert mine[step] == pytest.approx(theirs[step], rel=1e-5)
    assert any("step 4/4" in line for line in said)
    assert [told.step for told in steps] == [1, 2, 3, 4], "on_step is called here as it is without Ray"
    assert [told.report.diffusion for told in steps] == [losses(tmp_path / "ray")[step][0] for step in (1, 2, 3, 4)]
    assert (tmp_path / "ray" / "latest" / "model.safetensors").is_file()


def test_nothing_that_a_thread_says_meanwhile_is_lost() -> None:
    queue: SimpleQueue[int] = SimpleQueue()

    def speak() -> None:
        for number in range(20_000):
            queue.put(number)

    speaker = threading.Thread(target=speak)
    speaker.start()
    heard: list[int] = []
    while speaker.is_alive():
        heard += drained(queue)
    assert heard + drained(queue) == list(range(20_000))


@pytest.mark.usefixtures("ray_node")
def test_asked_to_stop_all_workers_save_and_end(runs: Runs, tmp_path: Path) -> None:
    def say(line: str) -> None:
        if line.startswith("step 1/"):
            ask_to_stop()  # as SIGTERM to the driver does

    config = runs.config(tmp_path / "out", {"steps": 5000}, launch="ray", workers=2, save_every=10_000)
    result = logged(say, train, config)
    assert result.stopped_early and 1 <= result.steps < 5000
    saved = latest(tmp_path / "out")
    assert saved is not None and saved.step == result.steps and saved.resume.is_dir() and saved.folder is not None


@pytest.mark.usefixtures("ray_node")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"workers": 64, "phase": {"rows": 64}}, r"64 ranks need 64 CPU, the cluster has 4: set launch.workers=4"),
        ({"workers": 2, "phase": {"where": "duration_s > 1000"}}, r"no kept segment"),
    ],
)
def test_what_a_cluster_cannot_do_is_one_line(runs: Runs, tmp_path: Path, changes: dict, words: str) -> None:  # type: ignore[type-arg]
    others = {name: value for name, value in changes.items() if name != "phase"}
    with pytest.raises(TrainError, match=words) as refused:
        train(runs.config(tmp_path / "out", changes["phase"], launch="ray", **others))
    assert "\n" not in str(refused.value)
