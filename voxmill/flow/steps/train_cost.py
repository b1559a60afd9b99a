"""What a training will take: the trainer's plan, or the most that its settings allow if its corpus does not exist yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catalogs.words import counted
from voxmill.flow.state import read_state
from voxmill.flow.steps.base import Cost, Step, before

if TYPE_CHECKING:
    from trainer.config import TrainConfig
    from voxcpm.config import VoxCPM2Config

_VOCABULARY = 512


def train_cost(step: Step, config: TrainConfig) -> Cost:
    """Return the cost of a training with these settings."""
    waits = [one.name for inputs in step.place.inputs.values() for one in inputs if not one.output.exists()]
    if waits:
        return _most(step, config, f"the corpus or model does not exist {before(waits)}")
    from trainer.config import TrainError
    from trainer.dryrun.plan import plan
    from voxcpm.errors import CheckpointError

    try:
        planned = plan(_beginning(step, config))
    except (TrainError, CheckpointError, ValueError, OSError) as error:
        return _most(step, config, " ".join(str(error).split()))
    return _cost(config, planned.exaflops, planned.disk_bytes, f"plan: {planned.exaflops * 1e6:,.3g} TFLOP")


def _beginning(step: Step, config: TrainConfig) -> TrainConfig:
    """Return the settings with an output that does not exist, unless an interrupted training continues in it."""
    state = read_state(step.place.folder, step.name)
    if state is None or state.status == "done" or state.parts.get("settings") != step.settings_digest:
        return config.model_copy(update={"output": str(step.output.with_name(f"{step.name}.planned"))})
    return config


def _most(step: Step, config: TrainConfig, why: str) -> Cost:
    """Return the cost if every row were full of patches that are learned: arithmetic on the settings."""
    from trainer.runtime.flops import training_flops

    model = _model(step, config)
    if model is None:
        return Cost(gpu_hours=None, usd=None, notes=(f"unknown: {why}",))
    positions = sum(p.steps * p.rows * p.accumulate * p.max_positions for p in config.phases.values())
    exaflops = training_flops(model, 0, positions, positions) / 1e18
    return _cost(config, exaflops, None, f"at most, with full rows: {why}")


def _cost(config: TrainConfig, exaflops: float, disk_bytes: float | None, note: str) -> Cost:
    from trainer.dryrun.plan import GPU_FLOPS

    hours = exaflops * 1e18 / GPU_FLOPS / 3600
    if config.compute.dtype == "float32":
        # The speed that the plan assumes is that of a GPU in bfloat16.
        return Cost(None, None, None, disk_bytes, (note, "time: float32 on this machine is not measured"))
    ranks = config.launch.workers if config.launch.backend == "ray" else 1
    on = f"{hours:,.2g} GPU hours at {GPU_FLOPS / 1e12:.0f} TFLOP/s, on {counted(ranks, 'GPU')}"
    return Cost(hours / ranks, hours, 0.0, disk_bytes, (note, on))


def _model(step: Step, config: TrainConfig) -> VoxCPM2Config | None:
    """Return the shape of the model that a training starts from, through the steps before it; None if it is not known."""
    from voxcpm.config import VoxCPM2Config
    from voxcpm.presets import PUBLISHED, config_dict, published_config

    while starts := step.many("start"):
        step = starts[0]
        own: Any = getattr(step, "config", None)
        if own is None:
            return None
        config = own()
    model = config.model
    if model.start is not None:
        return published_config(model.start) if model.start in PUBLISHED else None
    return VoxCPM2Config.from_dict(model.config or config_dict(model.size, _VOCABULARY))
