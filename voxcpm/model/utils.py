"""Device, dtype and seed of a model, under the official module path and names."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any, TypeVar

import torch

from voxcpm.errors import CheckpointError

Value = TypeVar("Value")

DTYPES = {
    "float32": torch.float32, "fp32": torch.float32, "bfloat16": torch.bfloat16, "bf16": torch.bfloat16,
    "float16": torch.float16, "fp16": torch.float16,
}  # fmt: skip
_VALID_DTYPE_OVERRIDES = frozenset(DTYPES)
_LOW_PRECISION_DTYPES = frozenset(name for name, dtype in DTYPES.items() if dtype != torch.float32)


def get_dtype(dtype: str) -> torch.dtype:
    """Return the torch dtype of a name in a config. Raises CheckpointError, a ValueError, for an unknown name."""
    if dtype not in DTYPES:
        raise CheckpointError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def pick_runtime_dtype(device: str, configured_dtype: str) -> str:
    """Return the name of the dtype to load weights in: the configured one, but on mps float32 or VOXCPM_MPS_DTYPE.

    Half precision on mps changes the audio audibly. Raises ValueError if VOXCPM_MPS_DTYPE names no dtype.
    """
    if device != "mps":
        return configured_dtype
    wanted = os.environ.get("VOXCPM_MPS_DTYPE", "").strip().lower()
    if wanted and wanted not in _VALID_DTYPE_OVERRIDES:
        raise ValueError(f"VOXCPM_MPS_DTYPE={wanted} is not one of {', '.join(DTYPES)}")
    return wanted or ("float32" if configured_dtype.lower() in _LOW_PRECISION_DTYPES else configured_dtype)


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def _available(device: str) -> bool:
    """Return True if this machine has the device. Raises ValueError if it is not the name of a kind of device."""
    kind = device.partition(":")[0]
    if kind == "cuda":
        return torch.cuda.is_available()
    if kind == "mps":
        return _has_mps()
    if kind != "cpu":
        raise ValueError(f"device {device!r} is not available: use auto, cpu, mps, cuda, or an index as in cuda:0")
    return True


def auto_select_device(preferred_device: str | None = "cuda") -> str:
    """Return the preferred device if this machine has it, otherwise the first of cuda, mps and cpu that it has."""
    preferred = (preferred_device or "cuda").strip().lower()
    return next(name for name in (preferred, "cuda", "mps", "cpu") if _known(name) and _available(name))


def _known(device: str) -> bool:
    return device.partition(":")[0] in ("cuda", "mps", "cpu")


def resolve_runtime_device(device: str | torch.device | None, configured_device: str = "cuda") -> str:
    """Return the device for a model. None or "auto": the configured device if this machine has it, otherwise the best one.

    Raises ValueError if the wanted device does not exist or this machine does not have it.
    """
    wanted = "auto" if device is None else str(device).strip().lower()
    if wanted == "auto":
        return auto_select_device(configured_device)
    if not _available(wanted):
        raise ValueError(
            f"device {wanted!r}: {wanted.partition(':')[0].upper()} is not available here; use auto or cpu"
        )
    return wanted


def materialize_generation_seed(seed: int | None) -> int:
    """Return the seed of a generation: the given one, otherwise one drawn from torch's global generator."""
    return int(torch.randint(2**31, ())) if seed is None else int(seed)


def apply_generation_seed(seed: int) -> None:
    """Seed torch's global generators. Our generation does not read them: its noise depends on (seed, patch index) only."""
    torch.manual_seed(seed)


def next_and_close(gen: Generator[Value, Any, Any]) -> Value:
    """Return the first item of a generator and close it, so that what it holds is released now."""
    try:
        return next(gen)
    finally:
        gen.close()


def mask_multichar_chinese_tokens(tokenizer: Any) -> Any:
    """Wrap a tokenizer of the `transformers` kind: called with a text, it gives ids, with Chinese words as characters."""
    from voxcpm.sequence.text_tokenizer import CharacterTokenizer

    return CharacterTokenizer(tokenizer)
