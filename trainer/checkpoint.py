"""Checkpoints of a run: the official folder that `speak` loads, with what resuming needs beside it."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from trainer.build import Trainee
from trainer.config import TrainError
from voxcpm.checkpoint import save_pretrained

_STATE = "training_state.pt"


@dataclass
class RunState:
    """Where a run is: steps done, losses so far, skipped samples, and what the data order was made from."""

    step: int = 0
    first_loss: float | None = None
    last_loss: float | None = None
    audio_s: float = 0.0
    skipped: dict[str, int] = field(default_factory=dict)
    data_key: str = ""


def save(output: Path, trainee: Trainee, optimizer: torch.optim.Optimizer, state: RunState, keep: int) -> Path:
    """Write checkpoints/step_N whole or not at all, point `latest` at it, and remove the oldest beyond `keep`."""
    folder = output / "checkpoints" / f"step_{state.step:07d}"
    resume = output / "resume" / f"{folder.name}.pt"
    resume.parent.mkdir(parents=True, exist_ok=True)
    temporary = resume.with_suffix(".tmp")
    torch.save({"optimizer": optimizer.state_dict(), "state": asdict(state)}, temporary)
    temporary.replace(resume)
    save_pretrained(folder, trainee.model, trainee.config, source=trainee.folder, codec=trainee.codec, dtype="float32")
    _point(output / "latest", Path("checkpoints") / folder.name)
    for old in sorted((output / "checkpoints").glob("step_*"))[:-keep]:
        shutil.rmtree(old)
    names = {path.name for path in (output / "checkpoints").glob("step_*")}
    for old in (output / "resume").glob("step_*.pt"):
        if old.stem not in names:
            old.unlink()
    return folder


def latest(output: Path) -> Path | None:
    """The newest checkpoint of a run that is whole and can be resumed."""
    for folder in sorted((output / "checkpoints").glob("step_*"), reverse=True):
        if (output / "resume" / f"{folder.name}.pt").is_file():
            return folder
    return None


def load_state(output: Path, folder: Path, optimizer: torch.optim.Optimizer, data_key: str) -> RunState:
    """Put the optimiser back where it was. TrainError when the data the run was made from has changed."""
    saved: dict[str, Any] = torch.load(output / "resume" / f"{folder.name}.pt", weights_only=True)
    state = RunState(**saved["state"])
    if state.data_key != data_key:
        raise TrainError(
            f"{output} was trained on other data or with other phases: its order cannot be continued; give another"
            " output, or start from its checkpoint with --set model.start=..."
        )
    optimizer.load_state_dict(saved["optimizer"])
    return state


def _point(link: Path, target: Path) -> None:
    temporary = link.with_name(f".{link.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
