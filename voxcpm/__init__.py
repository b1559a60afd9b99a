"""VoxCPM2: the model, its codec and inference. `from voxcpm import VoxCPM` as with the official package.

Importing this package is cheap: torch is imported when one of the names below is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxcpm import official
from voxcpm.lazy import exported

if TYPE_CHECKING:
    from voxcpm.config import VoxCPM2Config
    from voxcpm.core import VoxCPM
    from voxcpm.engine.request import GenerationRequest
    from voxcpm.inference.speaker import VoxCPM2Model
    from voxcpm.model.backbone import VoxCPM2
    from voxcpm.sequence.training_batch import Losses, TrainingBatch, TrainingNoise
    from voxcpm.weights.lora import LoRAConfig

_HOMES = {
    "VoxCPM": "voxcpm.core",
    "VoxCPM2Config": "voxcpm.config",
    "VoxCPM2": "voxcpm.model.backbone",
    "VoxCPM2Model": "voxcpm.inference.speaker",
    "GenerationRequest": "voxcpm.engine.request",
    "LoRAConfig": "voxcpm.weights.lora",
    "TrainingBatch": "voxcpm.sequence.training_batch",
    "TrainingNoise": "voxcpm.sequence.training_batch",
    "Losses": "voxcpm.sequence.training_batch",
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


__getattr__ = exported(__name__, _HOMES)
official.install()


def __dir__() -> list[str]:
    return sorted(__all__)
