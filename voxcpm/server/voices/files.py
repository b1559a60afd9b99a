"""Files of stored voices and consents: written whole or not at all, under ids of ours, never under a client's name."""

from __future__ import annotations

import fcntl
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from voxcpm.weights.atomic import write_file

ID = re.compile(r"(voice|cons)_[0-9a-f]{24}")
_MOST_JSON = 1 << 20
_MOST_PATCHES = 2_000
#: As in the files that `voxmill speak --save-voice` writes (voxcpm.inference.prompt_cache), which also loads these.
_ABOUT = "voxcpm_prompt_cache"
TENSORS = ("ref_audio_feat", "audio_feat")

Tensors = Mapping[str, NDArray[np.float32]]


def new_id(kind: str) -> str:
    """Return a new id: voice_... or cons_..."""
    return f"{kind}_{secrets.token_hex(12)}"


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record atomically."""
    write_file(path, (json.dumps(record, ensure_ascii=False, indent=1) + "\n").encode())


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a folder by id. Files under other names, and files that are not records, are left out."""
    records = {path.stem: read_record(path) for path in sorted(folder.glob("*.json"))}
    return {name: record for name, record in records.items() if record is not None}


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the record of a file; None if there is none, or if the file has another name or holds something else."""
    try:
        if ID.fullmatch(path.stem) is None or path.is_symlink() or path.stat().st_size > _MOST_JSON:
            return None
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    named = isinstance(record, dict) and isinstance(record.get("name"), str)
    return {**record, "id": path.stem} if named else None


def mode_of(tensors: Tensors) -> str:
    """Return what latents are for: reference, continuation or ref_continuation."""
    if "audio_feat" not in tensors:
        return "reference"
    return "ref_continuation" if "ref_audio_feat" in tensors else "continuation"


def write_tensors(path: Path, tensors: Tensors, prompt_text: str) -> None:
    """Write latents [N, P, D] float32 as a prompt cache, atomically. prompt_text: the words of `audio_feat`."""
    about = {_ABOUT: json.dumps({"mode": mode_of(tensors), "prompt_text": prompt_text})}
    write_file(
        path, save_tensors({name: np.ascontiguousarray(value) for name, value in tensors.items()}, metadata=about)
    )


def read_tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """Read latents. Raises ValueError, without the path, if the file is absent or does not hold them."""
    try:
        tensors = load_tensors(path.read_bytes())
    except (OSError, SafetensorError, ValueError, KeyError):
        raise ValueError("the voice's file is damaged: delete the voice and add it again") from None
    found = {name: tensors[name] for name in TENSORS if name in tensors}
    for value in found.values():
        if (
            value.ndim != 3
            or value.dtype != np.float32
            or not 0 < len(value) <= _MOST_PATCHES
            or not np.isfinite(value).all()
        ):
            raise ValueError("the voice's file holds something else than latents: delete the voice and add it again")
    if not found:
        raise ValueError("the voice's file holds no latents: delete the voice and add it again")
    return found


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Exclude other processes that change the folder: several servers may share it."""
    # What people agreed to is nobody else's business.
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
