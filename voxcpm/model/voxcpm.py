"""The official module path of the first version's model, and stand-ins for its classes, which are not built here.

Code that supports both versions imports them, and uses them for checkpoints of the first version only.
"""

from __future__ import annotations

from typing import Any, NoReturn

from voxcpm.errors import CheckpointError
from voxcpm.lazy import exported

__getattr__ = exported(__name__, {"LoRAConfig": "voxcpm.weights.lora"})


class _FirstVersion:
    def __init__(self, *_: Any, **__: Any) -> None:
        raise CheckpointError(
            f"{type(self).__name__} belongs to VoxCPM 0.5B and 1.5; this package has VoxCPM2 only: use VoxCPM2Model"
        )


class VoxCPMModel(_FirstVersion):
    """Raises CheckpointError when it is built or loaded."""

    @classmethod
    def from_local(cls, *_: Any, **__: Any) -> NoReturn:
        """Raise CheckpointError."""
        cls()
        raise AssertionError


class AudioVAE(_FirstVersion):
    """Raises CheckpointError when it is built."""


class AudioVAEConfig(_FirstVersion):
    """Raises CheckpointError when it is built."""


class VoxCPMLocDiT(_FirstVersion):
    """Raises CheckpointError when it is built."""
