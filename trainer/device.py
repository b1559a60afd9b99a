"""Where tensors are."""

from __future__ import annotations

import torch

from trainer.config import TrainError


def pick_device(wanted: str) -> torch.device:
    """`auto`: a CUDA device where there is one, else the CPU; others as torch names them. TrainError for one that is not here."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise TrainError(f"device {wanted!r} is none of auto, cpu, cuda, cuda:1 ...") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise TrainError(f"device {wanted}: no CUDA device is here; use device=cpu or auto")
    return device
