"""How many CPU threads a model gets."""

from __future__ import annotations

import os
from pathlib import Path


def spare_threads(model: str | Path) -> None:
    """Use one CPU thread for a small model (weights under 300 MB), torch's own number for others; OMP_NUM_THREADS wins.

    Each of a small model's many products is over before a second thread has woken up, and where other programs use the
    cores the waiting costs far more: 25 s instead of 0.7 s for a toy on two busy cores.
    """
    weights = Path(model).expanduser() / "model.safetensors"
    if "OMP_NUM_THREADS" not in os.environ and weights.is_file() and weights.stat().st_size < 300e6:
        import torch

        torch.set_num_threads(1)
