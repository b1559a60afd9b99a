"""Which base adapters are trained over: digests of its weights, kept with the run and compared when it is resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from trainer.config import TrainError
from voxcpm.weights.checkpoint import codec_file, model_file, read_tensors

_BLOCK = 1024
"""Values that are hashed at the beginning, in the middle and at the end of a tensor."""


def base_digests(folder: Path) -> dict[str, str]:
    """Digests of a checkpoint's weights: {"model": ..., "codec": ...}.

    They cover names, dtypes, shapes and three blocks of each tensor. Training changes whole tensors, so that any training of the
    base shows, and gigabytes need not be read at each start. The format of the file (safetensors or torch) does not matter.
    """
    files = {"model": model_file(folder), "codec": codec_file(folder)}
    return {name: tensors_digest(read_tensors(path, leave_mapped=lambda _: True)) for name, path in files.items()}


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """32 hex digits, the same for tensors in any order."""
    state = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        state.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        flat = tensor.detach().flatten()
        last = max(0, len(flat) - _BLOCK)
        for start in sorted({0, last // 2, last}):
            state.update(flat[start : start + _BLOCK].contiguous().view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def refuse_other_base(output: Path, before: Mapping[str, str], now: Mapping[str, str], start: str | None) -> None:
    """Raise TrainError if a run's adapters were trained over other weights than `start` holds now. A run begun before digests
    were kept has none, and continues."""
    changed = [name for name in before if name in now and before[name] != now[name]]
    if changed:
        raise TrainError(
            f"{output}: its adapters were trained over another {' and '.join(changed)} than {start} holds now: give the"
            " folder with the earlier weights as model.start, or start again with another output"
        )
