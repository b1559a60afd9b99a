"""VoxCPM2: the model, its codec and inference. `from voxcpm import VoxCPM` as with the official package.

Importing this package is light; torch is imported when one of the names below is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from voxcpm import official_names

if TYPE_CHECKING:
    from voxcpm.api import VoxCPM
    from voxcpm.config import VoxCPM2Config
    from voxcpm.generate import GenerationRequest
    from voxcpm.lora import LoRAConfig
    from voxcpm.model import VoxCPM2
    from voxcpm.training import Losses, TrainingBatch, TrainingNoise
    from voxcpm.tts import VoxCPM2Model

_HOMES = {
    "VoxCPM": "voxcpm.api",
    "VoxCPM2Config": "voxcpm.config",
    "VoxCPM2": "voxcpm.model",
    "VoxCPM2Model": "voxcpm.tts",
    "GenerationRequest": "voxcpm.generate",
    "LoRAConfig": "voxcpm.lora",
    "TrainingBatch": "voxcpm.training",
    "TrainingNoise": "voxcpm.training",
    "Losses": "voxcpm.training",
}

__all__ = [
    "GenerationRequest",
    "LoRAConfig",
    "Losses",
    "TrainingBatch",
    "TrainingNoise",
    "VoxCPM",
    "VoxCPM2",
    "VoxCPM2Config",
    "VoxCPM2Model",
]


official_names.register()


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'voxcpm' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
