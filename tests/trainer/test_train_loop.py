"""The loop on real speech: it learns, splits of a step are equal, bad steps change nothing, errors are one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.logs import logged
from safetensors.torch import load_file
from train_runs import Runs, losses

from trainer.config import TrainError
from trainer.run import train
from trainer.sample_kinds import LAYOUTS


def moments(output: Path) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Adam's two moments of every weight, from the newest checkpoint."""
    newest = sorted((output / "resume").glob("step_*.pt"))[-1]
    saved = torch.load(newest, weights_only=True)["optimizer"]["state"]
    return {number: (values["exp_avg"], values["exp_avg_sq"]) for number, values in saved.items()}


def weights(result: Any) -> dict[str, torch.Tensor]:
    return load_file(Path(result.checkpoint) / "model.safetensors")


def test_the_loss_goes_down_and_all_layouts_are_used(runs: Runs, tmp_path: Path) -> None:
    said: list[str] = []
    result = logged(said.append, train, runs.config(tmp_path / "out", {"steps": 40, "lr": 4e-3}, save_every=100))
    values = [sum(value[:2]) for _, value in sorted(losses(tmp_path / "out").items())]
    assert result.steps == 40 and len(values) == 40
    assert result.first_loss == pytest.approx(values[0]) and result.last_loss == pytest.approx(values[-1])
    assert sum(values[-5:]) < 0.7 * sum(values[:5])
    assert set(result.layouts) == set(LAYOUTS) and set(result.languages) == {"en", "de"}
    assert any("with a description" in line for line in said)


def test_the_split_of_a_step_into_parts_changes_nothing(runs: Runs, tmp_path: Path) -> None:
    """Two rows at once, or one row twice."""
    whole = train(runs.config(tmp_path / "a", {"steps": 3, "rows": 2, "accumulate": 1}))
    parts = train(runs.config(tmp_path / "b", {"steps": 3, "rows": 1, "accumulate": 2}))
    a, b = losses(tmp_path / "a"), losses(tmp_path / "b")
    for step in a:
        assert a[step] == pytest.approx(b[step], rel=1e-5)
    # The moments are the gradients' own: weights would also show Adam's division where a gradient is nearly none.
    ours, theirs = moments(tmp_path / "a"), moments(tmp_path / "b")
    assert len(ours) == len(weights(whole)) == len(weights(parts))
    for number, (mean, square) in ours.items():
        assert (mean - theirs[number][0]).norm() <= 1e-5 * mean.norm(), number
        assert (square - theirs[number][1]).norm() <= 1e-5 * square.norm(), number


def test_the_same_settings_give_the_same_weights(runs: Runs, tmp_path: Path) -> None:
    first = train(runs.config(tmp_path / "a", {"steps": 2}))
    second = train(runs.config(tmp_path / "b", {"steps": 2}))
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    ours, theirs = weights(first), weights(second)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def poison(monkeypatch: pytest.MonkeyPatch, bad: set[int]) -> None:
    """Make the loss NaN in the steps (from 0) of `bad`."""
    from voxcpm.model.backbone import VoxCPM2

    calls = iter(range(10_000))
    honest = VoxCPM2.training_losses

    def poisoned(self: VoxCPM2, *arguments: Any) -> Any:
        from dataclasses import replace

        found = honest(self, *arguments)
        return replace(found, diffusion_sum=found.diffusion_sum * float("nan")) if next(calls) in bad else found

    monkeypatch.setattr(VoxCPM2, "training_losses", poisoned)


def test_a_step_without_a_number_is_left_out_and_told(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, {1, 3})
    said: list[str] = []
    result = logged(said.append, train, runs.config(tmp_path / "out", {"steps": 5}, max_bad_steps=2))
    assert result.steps == 5 and result.bad_steps == 2
    assert sorted(losses(tmp_path / "out")) == [1, 3, 5]
    assert sum("is NaN or infinite" in line for line in said) == 2
    assert all(torch.isfinite(value).all() for value in weights(result).values())


def test_too_many_bad_steps_in_a_row_end_the_run_in_one_line(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, set(range(4, 100)))
    words = r"3 steps in a row .*--set phases.only.lr=.* resume from .*step_0000003"
    with pytest.raises(TrainError, match=words) as end:
        train(
            runs.config(tmp_path / "out", {"steps": 50}, max_bad_steps=3, save_every=3, guard={"rollbacks": 0}),
        )
    assert "\n" not in str(end.value)


def test_the_published_folder_speaks(runs: Runs, tmp_path: Path) -> None:
    """From scratch: tokenizer, codec and model are ours, and 48 kHz audio comes out."""
    import numpy as np

    from voxcpm import VoxCPM

    model = {"size": "toy", "vocabulary": 400, "codec_steps": 2}
    config = runs.config(tmp_path / "out", {"steps": 2, "rows": 1}, model=model)
    result = train(config)
    assert Path(result.checkpoint).resolve() == (tmp_path / "out" / "checkpoints" / "step_0000002").resolve()
    voice = VoxCPM.from_pretrained(result.checkpoint, load_denoiser=False, optimize=False)
    audio = voice.generate(text="Kids are talking.", max_len=4, inference_timesteps=2)
    assert voice.tts_model.sample_rate == 48_000
    assert audio.ndim == 1 and len(audio) >= 7680 and np.isfinite(audio).all()


def test_bfloat16_arithmetic_keeps_float32_weights(runs: Runs, tmp_path: Path) -> None:
    exact = train(runs.config(tmp_path / "a", {"steps": 3}))
    rounded = train(runs.config(tmp_path / "b", {"steps": 3}, dtype="bfloat16"))
    a, b = losses(tmp_path / "a"), losses(tmp_path / "b")
    assert a != b
    for step in a:
        assert a[step][:2] == pytest.approx(b[step][:2], rel=0.03)
    assert all(value.dtype == torch.float32 for value in weights(rounded).values())
    assert all(torch.isfinite(value).all() for value in weights(rounded).values())
    assert weights(exact).keys() == weights(rounded).keys()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"phase": {"where": "duration_s > 1000"}}, r"phase only: .* has no kept segment .*voxmill query"),
        ({"phase": {"where": "no_such > 1"}}, r"phase only: .*unknown column no_such"),
        ({"phase": {"max_positions": 16}}, r"no sample fits a row of 16 positions.*raise max_positions"),
        ({"device": "cuda:99"}, r"cuda"),
    ],
)
def test_what_cannot_be_trained_is_one_line(runs: Runs, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainError, match=words) as refused:
        train(runs.config(tmp_path / "out", **changes))
    assert "\n" not in str(refused.value)
