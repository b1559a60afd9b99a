"""The number of CPU threads for a model."""

from __future__ import annotations

import os
from pathlib import Path


def spare_threads(model: str | Path, below: float = 300e6) -> None:
    """Use one CPU thread for a small model (weights under `below` bytes). OMP_NUM_THREADS, if set, takes precedence.

    Each of a small model's many products ends before a second thread has started. If other programs use the cores, the
    waiting costs far more: 25 s instead of 0.7 s for a toy model on two busy cores.
    """
    weights = Path(model).expanduser() / "model.safetensors"
    if "OMP_NUM_THREADS" not in os.environ and weights.is_file() and weights.stat().st_size < below:
        import torch

        torch.set_num_threads(1)
