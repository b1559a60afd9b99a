"""Checkpoints of a run: the official folder that `speak` loads, and beside it what resuming needs.

OUTPUT/checkpoints/step_0000500/   official layout, in the config's dtype (LoRA: lora_weights.safetensors, lora_config.json)
OUTPUT/resume/step_0000500.pt      float32 weights that are trained, optimiser, moving average, random state, data cursor
OUTPUT/latest                      link to the newest
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from trainer.build import Trainee
from trainer.config import TrainError
from trainer.mixture import Realised
from trainer.optim import MovingAverage
from voxcpm.checkpoint import save_pretrained
from voxcpm.lora import merge_lora, save_lora
from voxcpm.model import VoxCPM2


@dataclass
class RunState:
    """Where a run is. `rows`: the name of the phase and the place in its stream of rows."""

    step: int = 0
    first_loss: float | None = None
    last_loss: float | None = None
    audio_s: float = 0.0
    bad_steps: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    data_key: str = ""
    rows: dict[str, Any] = field(default_factory=dict)
    realised: Realised = field(default_factory=Realised)


@dataclass
class Resumable:
    """What is saved and put back together."""

    trainee: Trainee
    optimizer: torch.optim.Optimizer
    average: MovingAverage | None
    state: RunState


def save(output: Path, run: Resumable, keep: int) -> Path:
    """Write checkpoints/step_N whole or not at all, point `latest` at it, and remove the oldest beyond `keep`."""
    folder = output / "checkpoints" / f"step_{run.state.step:07d}"
    _save_resume(output / "resume" / f"{folder.name}.pt", run)
    trainee = run.trainee
    with averaged(trainee.model, run.average):
        if trainee.lora is None:
            save_pretrained(folder, trainee.model, trainee.config, source=trainee.folder, codec=trainee.codec)
        else:
            _save_adapter(folder, trainee)
    _point(output / "latest", Path("checkpoints") / folder.name)
    _prune(output, folder.name, keep)
    return folder


def _prune(output: Path, newest: str, keep: int) -> None:
    """Remove the oldest checkpoints of this run beyond `keep`.

    Folders with a later step than the newest are another run's (its resume states are gone): they are left alone, and never
    counted, or what `latest` points at could be taken for old.
    """
    mine = sorted(path for path in (output / "checkpoints").glob("step_*") if path.name <= newest)
    for old in mine[:-keep]:
        # Without its resume state a folder is no candidate for resuming, however much of it a kill leaves.
        (output / "resume" / f"{old.name}.pt").unlink(missing_ok=True)
        rest = old.with_name(f".{old.name}.old")
        old.rename(rest)
        shutil.rmtree(rest)
    names = {path.name for path in (output / "checkpoints").glob("step_*")}
    for state in (output / "resume").glob("step_*.pt"):
        if state.stem not in names:
            state.unlink()


def save_merged(output: Path, run: Resumable) -> Path:
    """OUTPUT/merged: the base with the adapters added in, as an official folder that needs no adapter. Ends the run: the
    model has no adapters any more."""
    model = run.trainee.model
    with averaged(model, run.average):
        merge_lora(model)
        return save_pretrained(
            output / "merged", model, run.trainee.config, source=run.trainee.folder, codec=run.trainee.codec
        )


def latest(output: Path) -> Path | None:
    """The newest checkpoint of a run that is whole and can be resumed."""
    for folder in sorted((output / "checkpoints").glob("step_*"), reverse=True):
        if (output / "resume" / f"{folder.name}.pt").is_file():
            return folder
    return None


def restore(output: Path, folder: Path, run: Resumable) -> None:
    """Put everything back as it was at a checkpoint. TrainError when data or model of the run have changed."""
    path = output / "resume" / f"{folder.name}.pt"
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        values = dict(saved["state"])
        state = RunState(**(values | {"realised": Realised(**values["realised"])}))
    except Exception as error:
        raise TrainError(
            f"{path} cannot be read ({type(error).__name__}): remove {folder} to go on from the checkpoint before it"
        ) from None
    if state.data_key != run.state.data_key:
        raise TrainError(
            f"{output} was trained on other data or with other phases: its order cannot be continued; give another"
            f" output, or start from its checkpoint with --set model.start={folder}"
        )
    trained = {name: p for name, p in run.trainee.model.named_parameters() if p.requires_grad}
    differing = trained.keys() ^ saved["weights"].keys() or {
        name for name, p in trained.items() if p.shape != saved["weights"][name].shape
    }
    if differing or (run.average is None) != (saved["average"] is None):
        what = min(differing) if differing else "optim.ema"
        raise TrainError(
            f"{output} was trained with other model settings ({what}): give another output, or the settings in"
            f" {output / 'train.yaml'}"
        )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(saved["weights"][name])
    if run.average is not None:
        run.average.load(saved["average"])
    run.optimizer.load_state_dict(saved["optimizer"])
    torch.set_rng_state(saved["random"]["cpu"])
    if "cuda" in saved["random"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(saved["random"]["cuda"])
    run.state = state


@contextmanager
def averaged(model: VoxCPM2, average: MovingAverage | None) -> Iterator[None]:
    """Inside, the trained weights are their moving average (exchanged, not copied); nothing happens without one."""
    if average is not None:
        _exchange(model, average)
    try:
        yield
    finally:
        if average is not None:
            _exchange(model, average)


@contextmanager
def only_run(output: Path) -> Iterator[None]:
    """Hold the output folder: TrainError when another run writes there. Clears up what killed runs left half-written."""
    output.mkdir(parents=True, exist_ok=True)
    with (output / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TrainError(f"another run is training into {output}: wait for it, or give another output") from None
        for pattern in ("checkpoints/.step_*", ".start.*", ".merged.*", "resume/.step_*"):
            for rest in output.glob(pattern):
                shutil.rmtree(rest) if rest.is_dir() else rest.unlink()
        yield


def _exchange(model: VoxCPM2, average: MovingAverage) -> None:
    for name, parameter in model.named_parameters():
        if name in average.values:
            parameter.data, average.values[name] = average.values[name], parameter.data


def _save_resume(path: Path, run: Resumable) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["cuda"] = torch.cuda.get_rng_state()
    values = {
        "weights": {name: p.detach() for name, p in run.trainee.model.named_parameters() if p.requires_grad},
        "average": run.average.values if run.average is not None else None,
        "optimizer": run.optimizer.state_dict(),
        "random": random,
        "state": asdict(run.state),
    }
    draft = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    with draft.open("wb") as file:
        torch.save(values, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    _fsync(path.parent)


def _save_adapter(folder: Path, trainee: Trainee) -> None:
    assert trainee.lora is not None
    fresh = folder.parent / f".{folder.name}.{uuid4().hex[:8]}"
    save_lora(fresh, trainee.model, trainee.lora, str(trainee.folder))
    for path in fresh.iterdir():
        _fsync(path)
    if folder.exists():
        shutil.rmtree(folder)
    fresh.rename(folder)
    _fsync(folder.parent)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _point(link: Path, target: Path) -> None:
    """Make the link point at the target, in one rename."""
    temporary = link.with_name(f".{link.name}.tmp")
    with suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target)
    temporary.replace(link)
