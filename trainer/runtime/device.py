"""The device of a run, its arithmetic and its number of CPU threads."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainer.config import TrainConfig, TrainError


def pick_device(wanted: str, local_rank: int = 0) -> torch.device:
    """Return a device: `auto` is a CUDA device if there is one, otherwise the CPU; other names are torch's.

    Without a number, a CUDA device is that of `local_rank`. Raises TrainError if this machine does not have the device.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise TrainError(f"device {wanted!r} is none of auto, cpu, cuda, cuda:1 ...") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise TrainError(f"device {wanted}: this machine has no CUDA device; use compute.device=cpu or auto")
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
        # In float32, packed documents need several attention calls, and each number of documents needs another compilation.
        return device.type == "cuda" and config.compute.dtype == "bfloat16"
    return config.compute.compile


def slow_arithmetic(config: TrainConfig, device: torch.device) -> list[str]:
    """Return a warning if the processor has no bfloat16 instructions: torch then converts every matrix, which is slower than
    float32."""
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
    """Return a context with bfloat16 arithmetic over float32 weights if the config asks for it, otherwise a disabled one."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.compute.dtype == "bfloat16")
