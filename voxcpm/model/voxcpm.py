"""The official module path of `VoxCPMModel` and `LoRAConfig` in the code of the first version; one class has both versions."""

from __future__ import annotations

from voxcpm.lazy import exported

__getattr__ = exported(__name__, {"LoRAConfig": "voxcpm.weights.lora", "VoxCPMModel": "voxcpm.inference.speaker"})
