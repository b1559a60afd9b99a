"""The official module path of `VoxCPM2Model` and `LoRAConfig`."""

from __future__ import annotations

from voxcpm.lazy import exported

__getattr__ = exported(__name__, {"LoRAConfig": "voxcpm.weights.lora", "VoxCPM2Model": "voxcpm.inference.speaker"})
