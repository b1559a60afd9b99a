"""Files and folders on disk: written whole or not at all, hashed, and how their errors read."""

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
    """Put `data` at `final`, whole or not at all, and on the disk when this returns.

    drafts: a folder on the same file system for the file until it is whole. Default: the draft is a hidden file beside `final`.
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
    """A file to write that gets the name `final` at the end, whole and on the disk, or is removed if the block raises."""
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
    """A file that hashes what is written through it: the shard is read by nobody before its name is known."""

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
    """Write a file and force it to the disk; (sha256, bytes)."""
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
    """The sha256 of a file, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


_FULL_BYTES = 64 * 1024


def is_full_disk(error: BaseException) -> bool:
    """Return True if the system reports no space left, on the disk or in somebody's quota."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def has_no_space(path: str | Path) -> bool:
    """Whether the disk of a folder (or of the nearest one above it that is there) is full: libsndfile and FFmpeg only say
    "system error" then."""
    folder = next((f for f in (Path(path), *Path(path).parents) if f.is_dir()), Path("/"))
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize < _FULL_BYTES


def one_line(error: BaseException) -> str:
    """Return the words of an error in one line, or its kind if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
