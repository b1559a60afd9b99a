"""The state from which a codec's training resumes after a kill."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from catalogs.files import open_atomically
from trainer.codec.config import CodecConfig
from trainer.config import TrainError

_NAME = "resume.pt"
#: Settings that may change between two calls of a run: where it ends, how often it saves, its device, threads and memory.
_FREE = {"steps", "save_every", "measure_every", "output", "threads", "device", "memory_gb"}


def write_state(folder: Path, config: CodecConfig, state: dict[str, Any]) -> None:
    """Write the state of a run, whole or not at all."""
    with open_atomically(folder / _NAME) as file:
        torch.save({"settings": _key(config), **state}, file)


def remove_state(folder: Path) -> None:
    """Remove the state, so that there is nothing to resume from."""
    (folder / _NAME).unlink(missing_ok=True)


def read_state(folder: Path, config: CodecConfig) -> dict[str, Any] | None:
    """Return the state that a run with these settings left; None if there is none.

    Raises TrainError if the state cannot be read or belongs to other settings.
    """
    path = folder / _NAME
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        settings = state["settings"]
    except Exception as error:
        raise TrainError(
            f"{path} cannot be read ({type(error).__name__}): remove it to start this codec's training from the beginning"
        ) from None
    if settings != _key(config):
        raise TrainError(
            f"{folder} holds a run with other settings: give another output, or remove {path} to start from the beginning"
        )
    return state


def _key(config: CodecConfig) -> str:
    return hashlib.sha256(config.model_dump_json(exclude=_FREE).encode()).hexdigest()[:16]
