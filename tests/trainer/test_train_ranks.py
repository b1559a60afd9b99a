"""Two ranks with gloo: the same run as one rank, killed and resumed, resharded, and exported."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.logs import logged
from fakes.processes import PATIENCE_S
from rank_runs import RankProcesses, torchrun
from safetensors.torch import load_file
from train_runs import REPOSITORY, Runs, losses

from trainer.checkpoint.restore import Resumable, Saved, latest, restore
from trainer.checkpoint.shards import read_shards
from trainer.checkpoint.state import RunState
from trainer.config import TrainConfig, TrainError
from trainer.data.corpora import Corpora
from trainer.data.latent_cache import Latents
from trainer.data.mixture import data_key, find_candidates, hold_out
from trainer.data.samples import SampleMaker
from trainer.model.build import build
from trainer.model.ema import MovingAverage, averaged
from trainer.monitor.validation import Validator
from trainer.optim import make_optimizer
from trainer.run import train
from trainer.runtime.ranks import planned_ranks

STEPS, SAVE_EVERY = 26, 13
VALIDATION = {"every": STEPS, "share": 0.1, "speak": 0}
UPSTREAM = Path(os.environ.get("VOXMILL_UPSTREAM_PYTHON", REPOSITORY / ".upstream-venv" / "bin" / "python"))


def settings(runs: Runs, output: Path, **changes: Any) -> TrainConfig:
    """Four rows a step, two for each rank: a moving average, one validation at the end, few checkpoints (two seconds each)."""
    values: dict[str, Any] = {
        "save_every": SAVE_EVERY, "optim": {"ema": 0.9}, "validation": VALIDATION, "parallel": "fsdp",
    }  # fmt: skip
    return runs.config(output, {"steps": STEPS, "rows": 1, "accumulate": 4}, **(values | changes))


def validation(output: Path) -> dict[str, float]:
    """The metrics of the last validation."""
    lines = (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found = [row for row in map(json.loads, lines) if "validation/diffusion" in row]
    return {name: value for name, value in found[-1].items() if name != "step"}


@pytest.fixture
def started() -> Iterator[list[RankProcesses]]:
    """Runs that must not outlive the test."""
    found: list[RankProcesses] = []
    yield found
    for run in found:
        run.kill()


@pytest.fixture(scope="module")
def unbroken(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ranks, sharded, by torchrun."""
    folder = tmp_path_factory.mktemp("ranks")
    process = torchrun(settings(runs, folder / "out", keep=10, validation=VALIDATION | {"speak": 1}), folder)
    told = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 0, told
    assert told.count("phase only:") == 1, "only the first rank speaks"
    (spoken,) = (folder / "out" / "heard" / f"step_{STEPS:07d}").iterdir()
    assert spoken.stat().st_size > 1000, "the shards came together to speak"
    return folder / "out"


@pytest.fixture(scope="module")
def alone(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One rank."""
    output = tmp_path_factory.mktemp("alone") / "out"
    train(settings(runs, output, parallel="auto"))
    return output


def assert_same_run(output: Path, other: Path, steps: int = STEPS) -> None:
    """Losses and gradient norms of both runs, up to rounding.

    Sums are rounded in another order; after a dozen steps that tips a value over the border of two levels of the FSQ now and
    then, which leaps: 3e-3 of a loss, 2e-2 of a gradient's norm were seen.
    """
    mine, theirs = losses(output), losses(other)
    assert sorted(mine) == list(range(1, steps + 1)) and mine.keys() <= theirs.keys()
    for step, values in mine.items():
        if step <= 8:
            assert values == pytest.approx(theirs[step], rel=1e-5), step
        assert values[:2] == pytest.approx(theirs[step][:2], rel=2e-2), step


def test_two_sharded_ranks_are_the_same_run_as_one(unbroken: Path, alone: Path) -> None:
    """Same rows, same noise, losses normalized over all target patches: only rounding differs."""
    assert_same_run(unbroken, alone)
    assert validation(unbroken) == pytest.approx(validation(alone), rel=1e-2)
    ours, others = (load_file(folder / "latest" / "model.safetensors") for folder in (unbroken, alone))
    assert ours.keys() == others.keys()
    for name, value in others.items():
        assert (ours[name] - value).norm() <= 1e-3 * value.norm(), name


def test_copies_on_two_ranks_are_the_same_run_too(
    runs: Runs, alone: Path, tmp_path: Path, started: list[RankProcesses]
) -> None:
    # The first five steps: the schedule is that of the longer run.
    started.append(RankProcesses(settings(runs, tmp_path / "out", parallel="ddp", steps=5), tmp_path))
    assert started[0].finish() == [0, 0], started[0].said()
    assert_same_run(tmp_path / "out", alone, steps=5)


@pytest.mark.kill
def test_killed_at_any_step_the_next_losses_are_those_of_an_unbroken_run(
    runs: Runs, unbroken: Path, tmp_path: Path, started: list[RankProcesses], dice: random.Random
) -> None:
    # The save after step 4 waits for that after step 2, which is therefore there.
    step = dice.randrange(5, STEPS - 20 + 1)
    config = settings(runs, tmp_path / "out", async_save=True, recompute=True)  # neither changes a bit
    started.append(
        RankProcesses(settings(runs, tmp_path / "out", async_save=True, recompute=True, save_every=2), tmp_path)
    )
    started[0].wait_for_step(step)
    started[0].kill()
    saved = latest(tmp_path / "out")
    assert len(losses(tmp_path / "out")) < STEPS
    started.append(RankProcesses(config, tmp_path))
    assert started[1].finish() == [0, 0], started[1].said()
    assert saved is not None and "resuming from" in started[1].said(), f"killed after step {step}"
    assert losses(tmp_path / "out") == losses(unbroken), f"killed after step {step}"
    assert validation(tmp_path / "out") == validation(unbroken)
    assert len(list((tmp_path / "out" / "resume").iterdir())) == config.checkpoint.keep
    ours, theirs = (load_file(folder / "latest" / "model.safetensors") for folder in (tmp_path / "out", unbroken))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


@pytest.mark.kill
def test_one_rank_asked_to_stop_stops_and_saves_all_and_one_rank_goes_on(
    runs: Runs, unbroken: Path, tmp_path: Path, started: list[RankProcesses]
) -> None:
    """One rank, two ranks, one rank again. Exact on any number: rows, layouts, noise, counts. Up to rounding: losses, weights."""
    output = tmp_path / "out"
    train(settings(runs, output, parallel="auto", steps=3))
    assert (output / "resume" / "step_0000003.pt").is_file()
    started.append(RankProcesses(settings(runs, output, save_every=1000), tmp_path))
    started[0].wait_for_step(6)
    started[0].processes[1].send_signal(signal.SIGTERM)
    assert started[0].finish() == [0, 0], started[0].said()
    assert "asked to stop" in started[0].said()
    saved = latest(output)
    assert saved is not None and saved.resume.is_dir() and saved.step < STEPS
    assert "resuming from" in started[0].said() and len(losses(output)) == saved.step
    said: list[str] = []
    result = logged(said.append, train, settings(runs, output, parallel="auto"))
    assert any(line.startswith(f"resuming from {saved.name} at step {saved.step}") for line in said)
    assert result.steps == STEPS
    assert_same_run(output, unbroken)
    assert validation(output) == pytest.approx(validation(unbroken), rel=1e-2)
    state = torch.load(output / "resume" / f"step_{STEPS:07d}.pt", weights_only=True)["state"]
    theirs = json.loads((unbroken / "resume" / f"step_{STEPS:07d}" / "complete.json").read_text())["state"]
    exact = ("step", "rows", "realised", "audio_s", "data_key", "skipped")
    assert {name: state[name] for name in exact} == {name: theirs[name] for name in exact}


def test_what_one_rank_reads_is_what_two_wrote_to_the_bit(runs: Runs, unbroken: Path) -> None:
    """Weights, moving average and both moments, from the shards alone: the loss on the fixed validation is the same number."""
    config = settings(runs, unbroken, parallel="auto")
    saved = latest(unbroken)
    assert saved is not None
    resumable, validator = resumed_alone(config, saved)
    with averaged(resumable.trainee.model, resumable.average):
        # Rows of one rank's sums are added in one go: nothing is left to round differently.
        assert validator.run() == pytest.approx(validation(unbroken), rel=1e-6)
        official = load_file(unbroken / "latest" / "model.safetensors")
        held = resumable.trainee.model.state_dict()
        assert all(torch.equal(held[name], value) for name, value in official.items())


def resumed_alone(config: TrainConfig, saved: Saved) -> tuple[Resumable, Validator]:
    """A run on one rank with everything put back, as `train` does it, its weights not from the official folder."""
    corpora = Corpora(config.corpora)
    found = {"only": find_candidates(corpora, "true", config.phases["only"].max_seconds, "only")}
    candidates, held = hold_out(found, config.validation)
    trainee = build(config, corpora, None)
    assert config.optim.ema is not None
    state = RunState(data_key=data_key(config.seed, config.phases, candidates))
    optimizer = make_optimizer(trainee.model, config.optim, 1.0)
    resumable = Resumable(trainee, optimizer, MovingAverage(trainee.model, config.optim.ema), state)
    restore(Path(config.output), saved, resumable)
    maker = SampleMaker(corpora, Latents(corpora, trainee.codec, trainee.config, config.latent_cache), trainee.config)
    return resumable, Validator(config, trainee, held, maker, torch.device("cpu"))


def test_shards_without_their_marker_do_not_count(runs: Runs, unbroken: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(unbroken, output, symlinks=True)
    names = sorted(path.name for path in (output / "resume").iterdir())
    assert names == [f"step_{step:07d}" for step in (*range(SAVE_EVERY, STEPS, SAVE_EVERY), STEPS)]
    (output / "resume" / names[-1] / "complete.json").unlink()
    saved = latest(output)
    assert saved is not None and saved.resume.name == names[-2] and saved.folder is None


def test_damaged_shards_are_named(runs: Runs, unbroken: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(unbroken, output, symlinks=True)
    folder = output / "resume" / f"step_{STEPS:07d}"
    for path in folder.glob("*.distcp"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrainError, match=rf"{folder.name} cannot be read .*remove .*{folder.name}") as refused:
        train(settings(runs, output, parallel="auto"))
    assert "\n" not in str(refused.value)


def test_metadata_that_is_no_description_is_not_unpickled(unbroken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(unbroken / "resume" / f"step_{STEPS:07d}", folder)
    (folder / ".metadata").write_bytes(pickle.dumps(Evil(tmp_path / "touched")))
    with pytest.raises(TrainError, match="describes no tensor"):
        read_shards(folder, {})
    assert not (tmp_path / "touched").exists()


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.mkdir, (str(self.path),)


@pytest.mark.skipif(not UPSTREAM.is_file(), reason="no official package beside: make upstream-venv")
def test_upstream_loads_what_two_ranks_export_tensor_by_tensor(unbroken: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from safetensors.torch import save_file; from voxcpm.model.voxcpm2 import VoxCPM2Model;"
        "m = VoxCPM2Model.from_local(sys.argv[1], optimize=False, device='cpu');"
        "save_file({k: v.contiguous().clone() for k, v in m.state_dict().items()}, sys.argv[2])"
    )
    done = subprocess.run(
        # -I: without PYTHONPATH, which may lead to our package of the same name.
        [str(UPSTREAM), "-I", "-c", code, str((unbroken / "latest").resolve()), str(tmp_path / "theirs.safetensors")],
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    theirs = load_file(tmp_path / "theirs.safetensors")
    ours = load_file(unbroken / "latest" / "model.safetensors")
    ours |= {
        f"audio_vae.{name}": value for name, value in load_file(unbroken / "latest" / "audiovae.safetensors").items()
    }
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(theirs[name], value), name


def test_a_step_that_cannot_be_shared_is_one_line(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(
        TrainError, match=r"3 rows of a step .* by 2 processes: set phases\.only\.accumulate=4"
    ) as refused:
        train(runs.config(tmp_path / "out", {"rows": 1, "accumulate": 3}))
    assert "\n" not in str(refused.value) and not (tmp_path / "out").exists()
    with pytest.raises(TrainError, match="parallel is none"):
        train(runs.config(tmp_path / "out", parallel="none"))
    adapters = {"start": str(runs.start), "lora": {"r": 4}}
    with pytest.raises(TrainError, match=r"set launch\.parallel=ddp"):
        train(runs.config(tmp_path / "out", parallel="fsdp", model=adapters))
    assert planned_ranks(runs.config(tmp_path / "out", model=adapters)).mode == "ddp"
    assert planned_ranks(runs.config(tmp_path / "out")).mode == "fsdp"
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(TrainError, match="RANK is 2, WORLD_SIZE 2"):
        train(runs.config(tmp_path / "out"))
