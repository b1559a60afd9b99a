"""Which device a stage's model computes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal

Device = Literal["auto", "cpu", "cuda"]


def pick_device(asked: Device, gpus_of_library: Callable[[], int] | None = None) -> Literal["cpu", "cuda"]:
    """The device that is meant: `auto` is cuda where this process may use a GPU, else cpu.

    gpus_of_library: how many GPUs the library that computes can use; torch is asked where it is not given.
    """
    if asked != "auto":
        return asked
    # Ray shows an actor without a GPU share none: no library, slow to import, need be asked.
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "cpu"
    return "cuda" if (gpus_of_library or count_gpus)() > 0 else "cpu"


def count_gpus() -> int:
    """GPUs that torch may use in this process."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
