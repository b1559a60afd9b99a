"""The number of CPU threads for a model, for a batch and for the rows of a step."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_ROW_WORKERS = 2


def spare_threads(model: str | Path, below: float = 300e6) -> None:
    """Use one CPU thread for a small model (weights under `below` bytes). OMP_NUM_THREADS, if set, takes precedence.

    Each of a small model's many products ends before a second thread has started. If other programs use the cores, the
    waiting costs far more: 25 s instead of 0.7 s for a toy model on two busy cores.
    """
    weights = Path(model).expanduser() / "model.safetensors"
    if "OMP_NUM_THREADS" not in os.environ and weights.is_file() and weights.stat().st_size < below:
        import torch

        torch.set_num_threads(1)


def batch_workers(device: str, rows: int) -> int:
    """Return how many threads generate `rows` requests at once.

    2 on a CPU if torch's operations leave a core free, with 4 rows for each; otherwise 1. Small products gain little from a
    second thread of torch, and two batches side by side nearly double the speed. With fewer rows, a second worker would read
    all weights again for little.
    """
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 2 if device == "cpu" and cores > torch.get_num_threads() and rows >= 8 else 1


def row_workers(device: torch.device) -> ThreadPoolExecutor | None:
    """Return two threads that share the rows of a step, each with half of torch's threads; None on a GPU, or if torch has one.

    Torch's own threads divide every operation, and wait for each other after each. `torch.inference_mode` holds in one thread:
    what runs in these enters it.
    """
    import torch

    threads = torch.get_num_threads()
    if device.type != "cpu" or threads < _ROW_WORKERS:
        return None
    pool = ThreadPoolExecutor(_ROW_WORKERS, "rows", torch.set_num_threads, (threads // _ROW_WORKERS,))
    # All of them begin now, because the number that a thread sets is also the one of threads that begin later.
    barrier = threading.Barrier(_ROW_WORKERS + 1)
    for _ in range(_ROW_WORKERS):
        pool.submit(barrier.wait)
    barrier.wait()
    torch.set_num_threads(threads)
    return pool
