"""The device that a stage's model runs on."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal

Device = Literal["auto", "cpu", "cuda"]


def pick_device(asked: Device, gpus_of_library: Callable[[], int] | None = None) -> Literal["cpu", "cuda"]:
    """Return the device to use: `auto` is cuda if this process may use a GPU, otherwise cpu.

    gpus_of_library: returns how many GPUs the computing library can use; by default torch is asked.
    """
    if asked != "auto":
        return asked
    # For an actor without a GPU share, Ray hides all GPUs: no library, slow to import, has to be asked.
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "cpu"
    return "cuda" if (gpus_of_library or count_gpus)() > 0 else "cpu"


def count_gpus() -> int:
    """Return the number of GPUs that torch may use in this process."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
