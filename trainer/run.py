"""`train(config)`: here, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable

from trainer.config import TrainConfig
from trainer.loop import train_locally
from trainer.result import Progress, TrainResult


def train(
    config: TrainConfig,
    on_step: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Run all phases; resumes from the newest checkpoint of `output`. Raises TrainError (and the loaders' errors), one line.

    Started several times by torchrun, it is one run: see `trainer.runtime.ranks`. With `launch.backend: ray` it starts the
    ranks itself. Messages go to the logger `trainer`, on the first rank only. SIGTERM and SIGINT, on any rank, finish the step,
    save and return with `stopped_early`.
    """
    if config.launch.backend == "ray":
        from trainer.ray_launcher import train_on_ray

        return train_on_ray(config, on_step)
    return train_locally(config, on_step)
