"""Files and folders: atomic and durable writes, sha256, full disks, and errors as one line."""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


def write_atomically(final: Path, data: bytes, drafts: Path | None = None) -> None:
    """Write `data` to `final` atomically; it is on the disk when this returns.

    drafts: a folder on the same file system for the unfinished file. Default: the draft is a hidden file beside `final`.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    draft = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}") if drafts is None else drafts / final.name
    _write_and_rename(draft, final, data)
    fsync_path(final.parent)


def _write_and_rename(draft: Path, final: Path, data: bytes) -> None:
    try:
        write_durably(draft, lambda sink: sink.write(data))
        os.replace(draft, final)  # noqa: PTH105
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise


@contextmanager
def open_atomically(final: Path) -> Iterator[IO[bytes]]:
    """Open a draft for writing. At the end it is forced to the disk and renamed to `final`, or removed if the block raises."""
    final.parent.mkdir(parents=True, exist_ok=True)
    draft = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, final)  # noqa: PTH105
    finally:
        with suppress(OSError):
            draft.unlink()
    fsync_path(final.parent)


class _HashingSink:
    """A file that hashes what is written to it: a shard's name contains its hash, and it must not be read again for that."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        self.sha256.update(view)
        self._file.write(view)
        self.size += view.nbytes
        return view.nbytes

    def flush(self) -> None:
        self._file.flush()

    def tell(self) -> int:
        return self.size

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


def write_durably(path: Path, write: Callable[[IO[bytes]], object]) -> tuple[str, int]:
    """Write a file and force it to the disk; return (sha256 in hex, size in bytes)."""
    with path.open("wb") as file:
        sink = _HashingSink(file)
        write(sink)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    return sink.sha256.hexdigest(), sink.size


def make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        fsync_path(folder.parent)


def fsync_path(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


_FULL_BYTES = 64 * 1024


def is_full_disk(error: BaseException) -> bool:
    """Return True if the system reports no space left, on the disk or in a quota."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def has_no_space(path: str | Path) -> bool:
    """Return True if the disk of a folder (or of its nearest existing parent) is full. Needed because libsndfile and FFmpeg only
    report "system error" for it."""
    folder = next((f for f in (Path(path), *Path(path).parents) if f.is_dir()), Path("/"))
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize < _FULL_BYTES


def one_line(error: BaseException) -> str:
    """Return the message of an error in one line, or its type if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__
