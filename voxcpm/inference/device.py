"""The device that a model is loaded onto."""

from __future__ import annotations

import torch


def choose_device(wanted: str | torch.device | None, configured: str) -> torch.device:
    """Return the device for a model. None or "auto": the configured device if available, otherwise cuda, mps or cpu.

    Raises ValueError if this machine does not have the device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted is not None and str(wanted) != "auto":
        if not available.get(str(wanted).split(":")[0], False):
            usable = ", ".join(name for name, here in available.items() if here)
            raise ValueError(f"device {str(wanted)!r} is not available: use auto or one of {usable}")
        return torch.device(wanted)
    for name in (configured, "cuda", "mps", "cpu"):
        if available.get(name.split(":")[0]):
            return torch.device(name)
    return torch.device("cpu")
