"""Divergence: spikes and losses that are NaN or infinite are skipped, then the weights go back, then the run ends in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.logs import logged
from safetensors.torch import load_file
from train_runs import Runs, losses

from trainer.config import GuardSettings, TrainError
from trainer.monitor.loss_guard import Guard
from trainer.result import Progress
from trainer.run import train


def spoil(monkeypatch: pytest.MonkeyPatch, factors: dict[int, float]) -> list[int]:
    """Multiply the losses of steps (from 1, one forward pass each) by factors; the calls are counted in what is returned."""
    from voxcpm.model.backbone import VoxCPM2

    calls: list[int] = []
    honest = VoxCPM2.training_losses

    def spoilt(self: VoxCPM2, *arguments: Any) -> Any:
        calls.append(1)
        found = honest(self, *arguments)
        factor = factors.get(len(calls), 1.0)
        return replace(found, diffusion_sum=found.diffusion_sum * factor)

    monkeypatch.setattr(VoxCPM2, "training_losses", spoilt)
    return calls


def weights(output: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(output / "checkpoints" / f"step_{step:07d}" / "model.safetensors")


def test_a_leap_is_skipped_and_recorded(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, {9: 20.0})
    said: list[str] = []
    config = runs.config(tmp_path / "out", {"steps": 10}, save_every=1, keep=20, guard={"window": 5, "spike": 4.0})
    result = logged(said.append, train, config)
    assert (
        result.steps == 10
        and result.bad_steps == 1
        and sorted(losses(tmp_path / "out")) == [1, 2, 3, 4, 5, 6, 7, 8, 10]
    )
    assert any(
        "step 9: loss" in line and "times the median of the last 5; the step is skipped" in line for line in said
    )
    (line,) = (tmp_path / "out" / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
    noted = json.loads(line)
    assert noted["step"] == 9 and noted["segments"] and "median" in noted["reason"]
    before, after = weights(tmp_path / "out", 8), weights(tmp_path / "out", 10)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_after_too_many_the_weights_go_back_and_the_data_goes_on(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = dict.fromkeys((6, 7, 8), float("inf"))
    said: list[str] = []
    changes: dict[str, Any] = {"max_bad_steps": 3, "save_every": 4, "keep": 9}
    with monkeypatch.context() as patched:
        spoil(patched, bad)
        result = logged(said.append, train, runs.config(tmp_path / "out", {"steps": 12}, **changes))
    assert result.steps == 12 and result.bad_steps == 3
    assert any(
        "step 8: 3 steps in a row" in line and "weights are those of step_0000004 again" in line for line in said
    )
    assert sorted(losses(tmp_path / "out")) == [1, 2, 3, 4, 5, 9, 10, 11, 12]
    # Weights and moments are those of step 4, rows and rate those of step 9: a run that skipped 5 to 8 is the same.
    four, eight = weights(tmp_path / "out", 4), weights(tmp_path / "out", 8)
    assert all(torch.equal(four[name], eight[name]) for name in four)
    saved = [torch.load(tmp_path / f"out/resume/step_000000{n}.pt", weights_only=True) for n in (4, 8)]
    for number, values in saved[0]["optimizer"]["state"].items():
        assert all(torch.equal(values[key], saved[1]["optimizer"]["state"][number][key]) for key in values)
    assert saved[1]["state"]["rows"] != saved[0]["state"]["rows"] and saved[1]["state"]["rollbacks"] == 1
    # Killed after it, the run resumes as if it had not been.
    again = tmp_path / "again"
    (tmp_path / "out").rename(again)
    for name in ("checkpoints/step_0000012", "resume/step_0000012.pt"):
        path = again / name
        path.rename(tmp_path / path.name)
    expected = losses(again)
    train(runs.config(again, {"steps": 12}, **changes))
    assert losses(again) == expected


def test_a_run_that_diverges_again_ends_in_one_line(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = spoil(monkeypatch, dict.fromkeys(range(6, 100), float("nan")))
    with pytest.raises(
        TrainError, match=r"3 steps in a row .*--set phases\.only\.lr=.*resume from .*step_0000008"
    ) as end:
        train(runs.config(tmp_path / "out", {"steps": 50}, max_bad_steps=3, save_every=4))
    assert "\n" not in str(end.value) and len(calls) == 11


def test_the_guard_judges_by_the_median() -> None:
    recent: list[float] = []
    guard = Guard(GuardSettings(window=5, spike=3.0), recent, [])
    for loss in (9.0, 1.0, 1.1, 0.9):
        assert guard.accepts(1e9), "too few to judge by"
        guard.taken(loss)
    guard.taken(1.0)
    assert guard.accepts(2.9) and not guard.accepts(3.1)
    guard.taken(1.0)
    assert recent == [1.0, 1.1, 0.9, 1.0, 1.0]
    assert Guard(GuardSettings(window=5, spike=None), recent, []).accepts(1e9)


def test_a_gradient_that_is_not_a_number_is_called_that_even_if_the_loss_is_one() -> None:
    """Also before there is a median: nothing is remembered yet."""
    for recent in ([], [1.0, 1.0]):
        skipped: list[dict[str, Any]] = []
        guard = Guard(GuardSettings(), recent, skipped)
        for loss, norm in ((2.0, float("nan")), (2.0, float("inf")), (float("nan"), 1.0)):
            assert guard.refused(3, loss, norm, []) == "loss or gradient is NaN or infinite"
        assert [entry["reason"] for entry in skipped] == ["loss or gradient is NaN or infinite"] * 3
    assert "8.0 times the median of the last 2" in Guard(GuardSettings(), [1.0, 1.0], []).refused(3, 8.0, 1.0, [])


def test_a_loss_just_at_the_border_is_taken() -> None:
    assert Guard(GuardSettings(window=5, spike=3.0), [1.0] * 5, []).accepts(3.0)


def test_the_last_hundred_skipped_steps_are_remembered() -> None:
    skipped: list[dict[str, Any]] = []
    guard = Guard(GuardSettings(), [1.0], skipped)
    for step in range(1, 131):
        guard.refused(step, 9.0, 1.0, [])
    assert [entry["step"] for entry in skipped] == list(range(31, 131))


def test_lines_about_skipped_steps_are_not_there_twice_after_a_resume(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill after step 6 loses it with its line in skipped.jsonl; what was written of the steps before the checkpoint stays."""

    class Killed(BaseException):
        pass

    def killed(progress: Progress) -> None:
        if progress.step == 7:
            raise Killed

    output = tmp_path / "out"
    config = runs.config(output, {"steps": 8}, save_every=4)
    with monkeypatch.context() as patched:
        spoil(patched, {3: float("nan"), 6: float("nan")})
        with pytest.raises(Killed):
            train(config, killed)
    assert skipped_steps(output) == [3, 6]
    with (output / "skipped.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 7, "rea')  # a kill in the middle of a line
    with monkeypatch.context() as patched:
        spoil(patched, {2: float("nan")})
        train(config)
    assert skipped_steps(output) == [3, 6]


def skipped_steps(output: Path) -> list[int]:
    lines = (output / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["step"] for line in lines]
