"""The official module path of the first version's `VoxCPMModel`, its config and `LoRAConfig`.

One class has both versions here: the config says what differs.
"""

from __future__ import annotations

from voxcpm.lazy import exported

_HOMES = {
    "LoRAConfig": "voxcpm.weights.lora",
    "VoxCPMModel": "voxcpm.inference.speaker:VoxCPM2Model",
    "VoxCPMConfig": "voxcpm.config:VoxCPM2Config",
}

__getattr__ = exported(__name__, _HOMES)
