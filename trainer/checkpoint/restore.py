"""Find a run's checkpoints and restore from them: on one rank or several, from one file or from shards."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from trainer.checkpoint.shards import is_complete, read_shards, read_state
from trainer.checkpoint.state import RunState
from trainer.config import TrainError
from trainer.data.sample_counts import SampleCounts
from trainer.model.base import refuse_other_base
from trainer.model.build import Trainee
from trainer.model.ema import MovingAverage

T = TypeVar("T")
_STEP_NAME = re.compile(r"step_\d{7,}(\.pt)?")


@dataclass
class Resumable:
    """The objects that are saved and restored together."""

    trainee: Trainee
    optimizer: torch.optim.Optimizer
    average: MovingAverage | None
    state: RunState


@dataclass(frozen=True)
class Saved:
    """A checkpoint that can be resumed. resume: the file, or the folder of shards. folder: the official folder, if it exists."""

    step: int
    resume: Path
    folder: Path | None

    @property
    def name(self) -> Path:
        """The path shown in messages."""
        return self.folder or self.resume


def step_name(step: int) -> str:
    """Return the name of a step's files."""
    return f"step_{step:07d}"


def step_paths(folder: Path) -> list[Path]:
    """Return the entries of a folder that have the name of a step, the earliest first. Other entries do not belong to the run: they
    are neither read nor counted nor removed."""
    return sorted(path for path in folder.glob("step_*") if _STEP_NAME.fullmatch(path.name))


def latest(output: Path, until: int | None = None) -> Saved | None:
    """Return the newest complete checkpoint of a run (of a step up to `until`) that can be resumed; None if there is none."""
    found: list[Saved] = []
    for path in step_paths(output / "resume"):
        folder = output / "checkpoints" / path.stem
        step = int(path.stem.removeprefix("step_"))
        if path.suffix == ".pt" and path.is_file() and folder.is_dir():
            found.append(Saved(step, path, folder))
        elif is_complete(path):
            found.append(Saved(step, path, folder if folder.is_dir() else None))
    found = [saved for saved in found if until is None or saved.step <= until]
    return max(found, key=lambda saved: (saved.step, saved.resume.stat().st_mtime_ns), default=None)


def restore(output: Path, saved: Saved, run: Resumable) -> None:
    """Restore everything from a checkpoint, on any number of ranks. Raises TrainError if the data or the model of the run has
    changed."""
    state, values = _read(saved, run)
    refuse_other_data(output, saved, state, run.state.data_key)
    if state.data_key != run.state.data_key:
        _go_on_by_other_rules(state, run.state.data_key)
    refuse_other_base(output, state.base, run.state.base, run.trainee.start)
    state.base = run.state.base
    mine = run_tensors(run)
    differing = sorted(mine.keys() ^ values.keys()) or [
        name for name, value in sorted(values.items()) if value is not None and value.shape != mine[name].shape
    ]
    if differing:
        what = "optim.ema" if differing[0].startswith("average/") else differing[0].partition("/")[2]
        raise TrainError(
            f"{output} was trained with other model settings ({what}): give another output, or the settings in"
            f" {output / 'train.yaml'}"
        )
    if saved.resume.is_dir():
        _readable(saved, lambda: read_shards(saved.resume, mine))
    else:
        with torch.no_grad():
            for name, tensor in mine.items():
                value = values[name]
                assert value is not None
                if isinstance(tensor, DTensor):
                    # Every rank has read the whole tensor: each takes its part, without communication.
                    part = distribute_tensor(
                        value.to(tensor.device), tensor.device_mesh, tensor.placements, src_data_rank=None
                    )
                    tensor.copy_(part)
                else:
                    tensor.copy_(value)
    run.state = state


def refuse_other_data(output: Path, saved: Saved, state: RunState, key: str) -> None:
    """Raise TrainError if a run's data, or what determines its order, is not that of its checkpoint. Keys of another version of
    the rules cannot be compared: such a run continues (`_go_on_by_other_rules`)."""
    if state.data_key != key and _rules(state.data_key) == _rules(key):
        raise TrainError(
            f"{output} was trained on other data or with other phases: its order cannot be continued; give another"
            f" output, or start from its checkpoint with --set model.start={saved.name}"
        )


def _rules(key: str) -> str:
    """Return the rules version of a data key; "" for the first version, whose keys have none."""
    return key.rpartition(":")[0]


def _go_on_by_other_rules(state: RunState, key: str) -> None:
    """Let a run begun by an earlier version continue at the same choice number in the current order; drop its open rows."""
    if "at" in state.rows:
        state.rows["at"] = {"next": state.rows["at"]["next"], "open": [], "waited": []}
    state.data_key, state.reordered_at = key, state.step


def saved_state(saved: Saved) -> RunState:
    """Read only the state of a run, without its tensors."""

    def read() -> RunState:
        if saved.resume.is_dir():
            return _state(read_state(saved.resume))
        return _state(torch.load(saved.resume, map_location="cpu", weights_only=True, mmap=True))

    return _readable(saved, read)


def _state(found: dict[str, Any]) -> RunState:
    values = found["state"]
    phases = {name: SampleCounts(**counts) for name, counts in values.get("phases", {}).items()}
    return RunState(**(values | {"realised": SampleCounts(**values["realised"]), "phases": phases}))


def _read(saved: Saved, run: Resumable) -> tuple[RunState, dict[str, Tensor | None]]:
    """Read the state of a run and its tensors by name. A tensor of shards is None: it is read later, into allocated memory. The
    optimizer's state is allocated here."""

    def read() -> tuple[RunState, dict[str, Tensor | None], set[str]]:
        values: dict[str, Tensor | None]
        if saved.resume.is_dir():
            found = read_state(saved.resume)
            values = dict.fromkeys(found["tensors"])
            moved = {name.split("/", 2)[2] for name in values if name.startswith("optimizer/")}
        else:
            found = torch.load(saved.resume, map_location="cpu", weights_only=True, mmap=True)
            values = {f"weights/{name}": value for name, value in found["weights"].items()}
            values |= {f"average/{name}": value for name, value in (found["average"] or {}).items()}
            names = list(_trained_in_order(run))
            moved = {names[index] for index in found["optimizer"]["state"]} if len(names) == _count(found) else set()
            for index, moments in found["optimizer"]["state"].items():
                if moved:
                    values |= {f"optimizer/{key}/{names[index]}": value for key, value in moments.items()}
        return _state(found), values, moved

    state, values, moved = _readable(saved, read)
    for name, parameter in _trained_in_order(run).items():
        if name in moved:
            run.optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device if parameter.is_cuda else "cpu"),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        else:
            run.optimizer.state.pop(parameter, None)
    return state, values


def _count(found: dict[str, Any]) -> int:
    return sum(len(group["params"]) for group in found["optimizer"]["param_groups"])


def _readable(saved: Saved, read: Callable[[], T]) -> T:
    """Return the result of `read`. Raises TrainError with the next step if it fails."""
    try:
        return read()
    except Exception as error:
        raise TrainError(
            f"{saved.resume} cannot be read ({type(error).__name__}): remove {saved.name} to resume from the checkpoint"
            " before it"
        ) from None


def _trained_in_order(run: Resumable) -> dict[str, nn.Parameter]:
    """Return the parameters of the optimizer by name, in the optimizer's order."""
    names = {id(parameter): name for name, parameter in run.trainee.model.named_parameters()}
    return {names[id(p)]: p for group in run.optimizer.param_groups for p in group["params"]}


def run_tensors(run: Resumable) -> dict[str, Tensor]:
    """Return all tensors that resuming needs, by name; the run's own, not copies."""
    trained = _trained_in_order(run)
    found = {f"weights/{name}": parameter.detach() for name, parameter in trained.items()}
    if run.average is not None:
        found |= {f"average/{name}": value for name, value in run.average.values.items()}
    for name, parameter in trained.items():
        for key, value in run.optimizer.state.get(parameter, {}).items():
            found[f"optimizer/{key}/{name}"] = value
    return found


def described(run: Resumable) -> dict[str, Any]:
    """Return the JSON content that is saved beside the shards: the run's state and the names of its tensors."""
    return {"state": asdict(run.state), "tensors": sorted(run_tensors(run))}
