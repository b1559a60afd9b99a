"""The official module path of `VoxCPM2Model`, its config and `LoRAConfig`."""

from __future__ import annotations

from voxcpm.lazy import exported

_HOMES = {
    "LoRAConfig": "voxcpm.weights.lora",
    "VoxCPM2Model": "voxcpm.inference.speaker",
    "VoxCPMConfig": "voxcpm.config:VoxCPM2Config",
}

__getattr__ = exported(__name__, _HOMES)
