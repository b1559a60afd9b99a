"""The official module path of `LoRAConfig` in the code of the first version."""

from __future__ import annotations

from voxcpm.lazy import exported

__getattr__ = exported(__name__, {"LoRAConfig": "voxcpm.weights.lora"})
