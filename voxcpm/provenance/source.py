"""What the statements of one checkpoint have in common: the name of the model and the digest of its files."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

from voxcpm.provenance.statement import Statement

_FILES = ("*.json", "*.safetensors", "*.bin", "*.pth", "*.py")
_LINEAGE = "lineage.json"
"""Names the digest, so it cannot be part of it; no speech depends on it."""


def checkpoint_digest(folder: Path, lora: Path | None = None) -> str:
    """Return 16 hex digits over the digests of a checkpoint's files, and of an adapter's.

    This is the digest of `catalogs.weights.checkpoint_files`, which this package must not import; a test compares the two.
    """
    found = _digests(folder, "") | (_digests(lora, "lora/") if lora else {})
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def _digests(folder: Path, prefix: str) -> dict[str, str]:
    if folder.is_file():
        files = {folder}
    else:
        files = {
            path for pattern in _FILES for path in folder.glob(pattern) if path.is_file() and path.name != _LINEAGE
        }
    digests = {}
    for path in sorted(files):
        with path.open("rb") as file:
            digests[f"sha256 {prefix}{path.name}"] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


class Source:
    """Makes statements for one checkpoint. Its files are read by a thread meanwhile: weights have gigabytes."""

    def __init__(self, folder: Path | None, name: str | Path | None = None, lora: Path | None = None) -> None:
        """folder: the checkpoint; None: not known. name: a hub id; otherwise the name of the folder is used."""
        self._name = _name(folder, name)
        self._digest: str | None = None
        self._reading: threading.Thread | None = None
        if folder is not None:
            # It ends with the program: a command that fails does not wait for it.
            self._reading = threading.Thread(target=self._read, args=(folder, lora), daemon=True)
            self._reading.start()

    def statement(self, seed: int | None, request_id: str | None = None) -> Statement:
        """Return a statement of now, with the digest as soon as it is known."""
        if self._reading is not None:
            self._reading.join()
        return Statement(self._name, self._digest, seed, request_id)

    def _read(self, folder: Path, lora: Path | None) -> None:
        try:
            self._digest = checkpoint_digest(folder, lora)
        except OSError:
            self._digest = None  # A file that is gone by now does not stop speech that is made already.


def _name(folder: Path | None, name: str | Path | None) -> str | None:
    if name is not None and not Path(name).expanduser().is_dir():
        return str(name)
    # `latest` is a link to the folder that is loaded. Only the last name: a path may tell who the user is.
    return None if folder is None else folder.resolve().name
