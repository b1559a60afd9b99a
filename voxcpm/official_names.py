"""The official package's module paths, so that `from voxcpm.core import VoxCPM` and the like go on working.

Its `voxcpm.model.backbone` is a package and ours a module, so the paths are entered here instead of being files; what they lead to
is imported when it is asked for.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

#: Official module -> its documented names and where they live here.
NAMES = {
    "voxcpm.core": {"VoxCPM": "voxcpm.core"},
    "voxcpm.model.voxcpm": {"LoRAConfig": "voxcpm.weights.lora"},
    "voxcpm.model.voxcpm2": {"LoRAConfig": "voxcpm.weights.lora", "VoxCPM2Model": "voxcpm.inference.speaker"},
}


class _Path(ModuleType):
    """A module that imports a name from its home on first use."""

    def __getattr__(self, name: str) -> Any:
        home = NAMES[self.__name__].get(name)
        if home is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(import_module(home), name)


def register() -> None:
    """Enter the paths (cheap: nothing is imported)."""
    for name in NAMES:
        sys.modules.setdefault(name, _Path(name, f"Official names; see {__name__}."))
