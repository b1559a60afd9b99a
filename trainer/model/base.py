"""Digests of the base weights that adapters are trained over, saved with the run and compared when it resumes."""

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
    """Return digests of a checkpoint's weights: {"model": ..., "codec": ...}.

    They cover names, dtypes, shapes and three blocks of each tensor. This detects any training of the base, since training
    changes whole tensors, without reading gigabytes at each start. The file format (safetensors or torch) does not matter.
    """
    files = {"model": model_file(folder), "codec": codec_file(folder)}
    return {name: tensors_digest(read_tensors(path, leave_mapped=lambda _: True)) for name, path in files.items()}


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return 32 hex digits that do not depend on the order of the tensors."""
    state = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        state.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        flat = tensor.detach().flatten()
        last = max(0, len(flat) - _BLOCK)
        for start in sorted({0, last // 2, last}):
            state.update(flat[start : start + _BLOCK].contiguous().view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def refuse_other_base(output: Path, before: Mapping[str, str], now: Mapping[str, str], start: str | None) -> None:
    """Raise TrainError if a run's adapters were trained over other weights than `start` holds now. A run that was begun before
    digests were saved has none, and continues."""
    changed = [name for name in before if name in now and before[name] != now[name]]
    if changed:
        raise TrainError(
            f"{output}: its adapters were trained over another {' and '.join(changed)} than {start} holds now: give the"
            " folder with the earlier weights as model.start, or start again with another output"
        )
