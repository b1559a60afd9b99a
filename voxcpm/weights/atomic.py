"""Write a file, or replace a folder with another one, atomically (a folder: if the system supports it)."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from pathlib import Path
from uuid import uuid4

_CURRENT_FOLDER = -100
"""AT_FDCWD: paths are relative to the working directory."""
_EXCHANGE = 2
"""RENAME_EXCHANGE on Linux: swap two paths atomically."""


def write_file(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write a file: after a kill it is the earlier one or this one, complete and on the disk. mode: of a new file, before umask."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def replace_folder(fresh: Path, folder: Path) -> None:
    """Move `fresh` to the path `folder`. An existing folder there is removed after the new one is in place.

    If the system supports it, one call swaps the two. Otherwise two renames are needed. Between them the earlier folder has
    only a hidden name, and after a kill `put_back` restores it.
    """
    put_back(folder)
    old: Path | None = None
    if folder.exists():
        old = _swap(fresh, folder)
    else:
        fresh.rename(folder)
    _sync_folder(folder.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_back(folder: Path) -> None:
    """Restore the folder that a killed `replace_folder` left under a hidden name, if nothing has the folder's name."""
    aside = set_aside(folder)
    if aside is not None:
        aside.rename(folder)


def set_aside(folder: Path) -> Path | None:
    """Return the newest folder that a killed `replace_folder` left under a hidden name; None if `folder` exists."""
    if os.path.lexists(folder) or not folder.parent.is_dir():
        return None
    hidden = re.compile(rf"\.{re.escape(folder.name)}\.[0-9a-f]{{8}}\.old")
    found = [path for path in folder.parent.iterdir() if hidden.fullmatch(path.name)]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def _swap(fresh: Path, folder: Path) -> Path:
    """Replace the folder and return the new path of the earlier one."""
    if exchange(fresh, folder):
        return fresh
    old = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.old")
    try:
        folder.rename(old)
        fresh.rename(folder)
    except BaseException:  # includes an interrupt; the caller removes `fresh`
        put_back(folder)
        raise
    return old


def exchange(one: Path, other: Path) -> bool:
    """Swap two paths in one call. Return False if the system or the file system does not support it."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return bool(call(_CURRENT_FOLDER, os.fsencode(one), _CURRENT_FOLDER, os.fsencode(other), _EXCHANGE) == 0)
