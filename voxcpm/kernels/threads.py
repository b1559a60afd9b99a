"""The number of CPU threads for a model, and work on the cores that they leave."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")


def spare_threads(model: str | Path, below: float = 300e6) -> None:
    """Use one CPU thread for a small model (weights under `below` bytes). OMP_NUM_THREADS, if set, takes precedence.

    Each of a small model's many products ends before a second thread has started. If other programs use the cores, the
    waiting costs far more: 25 s instead of 0.7 s for a toy model on two busy cores.
    """
    weights = Path(model).expanduser() / "model.safetensors"
    if "OMP_NUM_THREADS" not in os.environ and weights.is_file() and weights.stat().st_size < below:
        import torch

        torch.set_num_threads(1)


@contextmanager
def on_spare_core(device: str) -> Iterator[Callable[[Callable[[], Result]], Future[Result]]]:
    """Yield a function that runs work on another core while its caller goes on, in order.

    The work runs at once, in the caller's thread, if torch's operations use all cores or if the model's device is not the CPU.
    At the end of the block, work that has not begun is dropped if the block raised.
    """
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if device != "cpu" or cores <= torch.get_num_threads():
        yield _at_once
        return
    with ThreadPoolExecutor(1, "spare-core") as pool:
        try:
            yield pool.submit
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _at_once(work: Callable[[], Result]) -> Future[Result]:
    future: Future[Result] = Future()
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)
    return future
