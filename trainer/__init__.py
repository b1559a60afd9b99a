"""Train a model from a corpus. Importing this package is cheap: torch is imported when one of the names below is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxcpm.lazy import exported

if TYPE_CHECKING:
    from trainer.config import TrainConfig, load_train_config
    from trainer.result import Progress, TrainResult
    from trainer.run import train

_HOMES = {
    "TrainConfig": "trainer.config",
    "load_train_config": "trainer.config",
    "Progress": "trainer.result",
    "TrainResult": "trainer.result",
    "train": "trainer.run",
}

__all__ = ["Progress", "TrainConfig", "TrainResult", "load_train_config", "train"]


__getattr__ = exported(__name__, _HOMES)
