"""Corpus in, checkpoint out. Importing this is light; torch comes with the first of the names below that is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.config import TrainConfig, load_train_config
    from trainer.loop import train
    from trainer.result import Progress, TrainResult

_HOMES = {
    "TrainConfig": "trainer.config",
    "load_train_config": "trainer.config",
    "Progress": "trainer.result",
    "TrainResult": "trainer.result",
    "train": "trainer.loop",
}

__all__ = ["Progress", "TrainConfig", "TrainResult", "load_train_config", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'trainer' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
