"""The identity of a checkpoint or an adapter: the digests of all files that its speech depends on."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from catalogs.files import file_sha256

_FILES = ("*.json", "*.safetensors", "*.bin", "*.pth", "*.py")
_LINEAGE = "lineage.json"
"""Names the digest, so it cannot be part of it; no speech depends on it."""


def file_digests(folder: Path, prefix: str = "") -> dict[str, str]:
    """Return `sha256 NAME` and the digest of every file of a checkpoint or an adapter."""
    files = sorted(
        {path for pattern in _FILES for path in folder.glob(pattern) if path.is_file() and path.name != _LINEAGE}
    )
    return {f"sha256 {prefix}{path.name}": _digest(path) for path in files}


def checkpoint_digest(folder: Path, lora: Path | None = None) -> str:
    """Return 16 hex digits over the digests of a checkpoint's files, and of an adapter's."""
    found = file_digests(folder) | (file_digests(lora, "lora/") if lora else {})
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def _digest(path: Path) -> str:
    state = path.stat()
    return _digest_of(path.resolve(), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest_of(path: Path, size: int, mtime_ns: int) -> str:
    """Return the sha256 of a file. It is computed once per size and time of change: weights have gigabytes."""
    del size, mtime_ns
    return file_sha256(path)
