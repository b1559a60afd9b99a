"""Where tensors are, and how many CPU threads work on them."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainer.config import TrainConfig, TrainError


def pick_device(wanted: str, local_rank: int = 0) -> torch.device:
    """`auto`: a CUDA device where there is one, else the CPU; others as torch names them. TrainError for one that is not here.

    Where no number is given it is that of the process among those of its machine.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise TrainError(f"device {wanted!r} is none of auto, cpu, cuda, cuda:1 ...") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise TrainError(f"device {wanted}: no CUDA device is here; use compute.device=cpu or auto")
    if device.type == "cuda" and device.index is None:
        count = torch.cuda.device_count()
        if local_rank >= count:
            raise TrainError(
                f"local rank {local_rank} has no GPU: this machine has {count}. Start 1 process per GPU"
                f" (--nproc-per-node {count})."
            )
        device = torch.device("cuda", local_rank)
    return device


def is_compiled(config: TrainConfig, device: torch.device) -> bool:
    """Return True if blocks are compiled on `device`."""
    if config.compute.compile == "auto":
        # In float32, packed documents cannot be attended to in one call, and every number of them is compiled again.
        return device.type == "cuda" and config.compute.dtype == "bfloat16"
    return config.compute.compile


def slow_arithmetic(config: TrainConfig, device: torch.device) -> list[str]:
    """A line if the processor has no bfloat16 instructions, so that torch converts every matrix: slower than float32."""
    x86 = platform.machine() in ("x86_64", "AMD64")
    if device.type != "cpu" or config.compute.dtype != "bfloat16" or not x86 or _has_bfloat16():
        return []
    return ["this processor has no bfloat16 instructions: --set compute.dtype=float32 is several times as fast here"]


def _has_bfloat16() -> bool:
    """Return True if an x86 processor multiplies bfloat16 matrices itself (AVX512-BF16 or AMX)."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Let torch use `count` threads inside the block (None: no change); restore the former count afterwards."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """bfloat16 arithmetic over float32 weights, where the config asks for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.compute.dtype == "bfloat16")
