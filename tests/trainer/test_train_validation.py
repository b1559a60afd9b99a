"""Held-out segments stay unheard, their losses do not depend on when they are measured, and the moving average is published."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.logs import logged
from safetensors.torch import load_file
from train_runs import Runs, losses

from trainer.config import Phase, TrainError, ValidationSettings
from trainer.data.corpora import Corpora
from trainer.data.latent_cache import Latents
from trainer.data.mixture import find_candidates, hold_out
from trainer.data.samples import SampleMaker
from trainer.model.build import build
from trainer.monitor.speech_samples import SpeechSampler
from trainer.monitor.validation import Validator
from trainer.run import train
from trainer.runtime.metrics import read_metrics
from trainer.runtime.ranks import Ranks
from voxcpm.model.backbone import VoxCPM2

VALIDATION = {"every": 2, "share": 0.3, "segments": 3}


def test_what_is_held_out_is_never_heard(speech: Path) -> None:
    candidates = {"all": find_candidates(Corpora([speech]), "true", 60.0, "all")}
    training, held = hold_out(candidates, ValidationSettings(every=1, share=0.3))
    ids = {c.segment_id for c in held}
    assert held and ids.isdisjoint(c.segment_id for c in training["all"])
    assert len(training["all"]) + len(held) == len(candidates["all"])
    assert all(reference not in ids for c in training["all"] for reference, _ in c.references)


def test_the_choice_follows_from_the_ids_alone(speech: Path) -> None:
    everything = find_candidates(Corpora([speech]), "true", 60.0, "all")
    settings = ValidationSettings(every=1, share=0.3)
    whole = {c.segment_id for c in hold_out({"a": everything}, settings)[1]}
    half = everything[::2]
    part = {c.segment_id for c in hold_out({"a": half}, settings)[1]}
    assert part == whole & {c.segment_id for c in half}


def test_a_phase_of_which_all_is_held_out_is_told(speech: Path) -> None:
    one = find_candidates(Corpora([speech]), "true", 60.0, "all")[:1]
    with pytest.raises(TrainError, match=r"phase only: all of its segments are held out.*validation\.share"):
        hold_out({"only": one}, ValidationSettings(every=1))


def test_off_nothing_is_held_out(speech: Path) -> None:
    candidates = {"all": find_candidates(Corpora([speech]), "true", 60.0, "all")}
    assert hold_out(candidates, ValidationSettings()) == (candidates, [])


@pytest.fixture(scope="module")
def still(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose weights hardly move."""
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("still") / "out"
    train(runs.config(output, {"steps": 4, "lr": 1e-12}, validation=VALIDATION))
    return output


def scores(output: Path) -> list[dict[str, float]]:
    return [row for row in read_metrics(output) if "validation/diffusion" in row]


def test_the_same_weights_have_the_same_validation_loss(still: Path) -> None:
    first, second = scores(still)
    assert (first["step"], second["step"]) == (2, 4)
    assert first["validation/diffusion"] == pytest.approx(second["validation/diffusion"], rel=1e-6)
    training = [row["loss/diffusion"] for row in read_metrics(still) if "loss/diffusion" in row]
    assert max(training) - min(training) > 1e-3


def test_it_is_split_by_layout_language_and_flow_time(still: Path) -> None:
    row = scores(still)[0]
    assert 0 <= row["validation/stop_f1"] <= 1 and row["validation/stop"] > 0
    quarters = [f"validation/diffusion_t{edges}" for edges in ("0-0.25", "0.25-0.5", "0.5-0.75", "0.75-1")]
    assert all(row[name] > 0 for name in quarters)
    assert {name for name in row if name.endswith(("_en", "_de"))}


def test_validating_changes_nothing_in_the_training(runs: Runs, still: Path, tmp_path: Path) -> None:
    rarely = dict(VALIDATION, every=100)
    train(runs.config(tmp_path / "out", {"steps": 4, "lr": 1e-12}, validation=rarely))
    assert losses(tmp_path / "out") == losses(still)


def test_the_moving_average_is_published_and_the_live_weights_are_trained(runs: Runs, tmp_path: Path) -> None:
    phase = {"steps": 4, "schedule": "constant", "warmup": 0}
    plain = train(runs.config(tmp_path / "plain", phase))
    for steps in (2, 4):  # resumed once
        result = train(runs.config(tmp_path / "ema", phase, optim={"ema": 0.9}, steps=steps, save_every=1, keep=4))
    seen = [_live(tmp_path / "ema", step) for step in range(1, 5)]
    assert losses(tmp_path / "ema") == losses(tmp_path / "plain")
    start = load_file(runs.start / "model.safetensors")
    published = load_file(Path(result.checkpoint) / "model.safetensors")
    name = "stop_proj.weight"
    wanted = start[name]
    for step, weights in enumerate(seen, 1):
        decay = min(0.9, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * weights[name]
    torch.testing.assert_close(published[name], wanted, rtol=0, atol=1e-6)
    live = load_file(Path(plain.checkpoint) / "model.safetensors")
    assert torch.equal(seen[-1][name], live[name]) and not torch.equal(published[name], live[name])


def _live(output: Path, step: int) -> dict[str, torch.Tensor]:
    saved: dict[str, Any] = torch.load(output / "resume" / f"step_{step:07d}.pt", weights_only=True)
    return saved["weights"]


def test_asked_to_stop_no_validation_stands_before_the_save(runs: Runs, tmp_path: Path) -> None:
    """What a cluster grants between SIGTERM and SIGKILL may be shorter than a validation with speech."""
    said: list[str] = []
    config = runs.config(tmp_path / "out", {"steps": 4}, validation=VALIDATION | {"speak": 1}, save_every=100)

    def after_step(progress: Any) -> None:
        if progress.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    result = logged(said.append, train, config, after_step)
    assert result.stopped_early and result.steps == 2 and not scores(tmp_path / "out"), said
    assert (tmp_path / "out" / "resume" / "step_0000002.pt").is_file() and not (tmp_path / "out" / "heard").exists()
    assert train(config).steps == 4
    assert [row["step"] for row in scores(tmp_path / "out")] == [4]


def test_asked_to_stop_it_ends_with_the_row_and_the_sentence_it_is_at(runs: Runs, tmp_path: Path) -> None:
    config = runs.config(tmp_path / "out", validation={"every": 1, "share": 0.5, "speak": 3})
    corpora = Corpora(config.corpora)
    held = hold_out({"a": find_candidates(corpora, "true", 60.0, "a")}, config.validation)[1]
    trainee = build(config, corpora, None)
    maker = SampleMaker(corpora, Latents(corpora, trainee.codec, trainee.config, config.latent_cache), trainee.config)

    def after(calls: int) -> Callable[[], bool]:
        asked = iter(range(calls + 1))
        return lambda: next(asked) == calls

    validator = Validator(config, trainee, held, maker, torch.device("cpu"), after(1))
    assert validator.segments > 1 and validator.run() == {} and trainee.model.training
    heard = SpeechSampler(config, trainee, held, maker, after(2)).listen(trainee.model)
    assert len(heard) == 2 and trainee.model.training


def test_ranks_share_the_rows_and_the_sums_are_those_of_one(runs: Runs, tmp_path: Path) -> None:
    """With a number of rows that two ranks cannot share equally: each row counts once, on one of them."""
    config = runs.config(tmp_path / "out", validation={"every": 1, "share": 0.5})
    corpora = Corpora(config.corpora)
    held = hold_out({"a": find_candidates(corpora, "true", 60.0, "a")}, config.validation)[1]
    trainee = build(config, corpora, None)
    maker = SampleMaker(corpora, Latents(corpora, trainee.codec, trainee.config, config.latent_cache), trainee.config)
    alone = Validator(config, trainee, held, maker, torch.device("cpu"))
    assert len(alone._rows) % 2, "the last round is not full"
    gathered: list[Any] = []

    class OneOfTwo(Ranks):
        def gathered(self, value: Any) -> list[Any]:
            gathered.append(value)
            return gathered

        def sums(self, values: Sequence[float]) -> list[float]:
            return list(values)

    passes = count_passes(trainee.model)
    for rank in range(2):
        found = Validator(config, trainee, held, maker, torch.device("cpu"), ranks=OneOfTwo(rank, 2)).run()
    assert passes[:] == [1] * 2 * -(-len(alone._rows) // 2), "a sharded model is computed by all ranks at once"
    assert found == pytest.approx(alone.run(), rel=1e-9)


def count_passes(model: VoxCPM2) -> list[int]:
    """A list that grows by an entry with each forward pass."""
    passes: list[int] = []
    honest = model.training_losses

    def counted(*arguments: Any) -> Any:
        passes.append(1)
        return honest(*arguments)

    model.training_losses = counted  # type: ignore[assignment]
    return passes


def test_the_last_step_is_validated_in_any_case(runs: Runs, tmp_path: Path) -> None:
    train(runs.config(tmp_path / "out", {"steps": 3}, validation=VALIDATION | {"speak": 0}))
    assert [row["step"] for row in scores(tmp_path / "out")] == [2, 3]


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0.25, 0]),
        ("cosine", [1, 0.868, 0.55, 0.232, 0.1]),
        ("wsd", [1, 1, 1, 0.5, 0]),
    ],
)
def test_schedules(schedule: str, wanted: list[float]) -> None:
    """At the beginning, the quarters and the end of what follows the warm-up (for wsd, of the whole phase)."""
    from trainer.optim import learning_rate

    warmup = 0 if schedule == "wsd" else 20
    phase = Phase.model_validate(
        {"steps": 100 + warmup, "lr": 2.0, "warmup": warmup, "schedule": schedule, "decay": 0.5}
    )
    rates = [learning_rate(phase, warmup + at) / 2 for at in (0, 25, 50, 75, 100)]
    assert rates == pytest.approx(wanted, abs=1e-3)
    climb = [learning_rate(phase, step) for step in range(warmup)]
    assert climb == pytest.approx([2.0 * (n + 1) / 20 for n in range(warmup)])
