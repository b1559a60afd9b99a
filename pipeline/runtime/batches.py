"""Batches for a model: items of similar length together, and half as many if memory does not suffice."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def length_buckets(items: Sequence[T], size: int, length: Callable[[T], float]) -> list[list[T]]:
    """Return batches of at most `size` items of similar length, the longest first; equal lengths keep their order.

    A batch is padded to its longest item, so items of neighboring lengths waste the least. The longest come first, so that
    a batch that does not fit into memory shows at once and not after an hour.
    """
    if size < 1:
        raise ValueError(f"a batch holds at least one item, not {size}")
    ordered = sorted(items, key=length, reverse=True)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an exception means that the memory of the machine or of the GPU did not suffice, whichever library
    raised it."""
    if isinstance(error, MemoryError) or type(error).__name__ in ("OutOfMemoryError", "OutOfMemoryException"):
        return True
    if not isinstance(error, RuntimeError):
        return False
    words = str(error).lower()
    return any(phrase in words for phrase in _PHRASES)


# torch (CUDA and CPU allocator), CTranslate2, onnxruntime, cuBLAS and cuDNN.
_PHRASES = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "failed to allocate memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)


def free_memory() -> None:
    """Release what the failed attempt still holds: garbage in cycles and torch's cache of GPU blocks."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
