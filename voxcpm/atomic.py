"""Replace a folder by another one, so that its name never leads nowhere."""

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
"""RENAME_EXCHANGE of Linux: both names stay, what they lead to changes places."""


def replace_folder(fresh: Path, folder: Path) -> None:
    """Give `fresh` the name of `folder`. A folder that had the name is removed once the new one has it.

    Where the system can, both change places in one call. Elsewhere two renames leave a moment at which the earlier folder is
    only there under a hidden name: `put_back` brings it back after a kill.
    """
    put_back(folder)
    old: Path | None = None
    if folder.exists():
        old = _swap(fresh, folder)
    else:
        fresh.rename(folder)
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def put_back(folder: Path) -> None:
    """Rename what a killed `replace_folder` has set aside, if nothing has the folder's name."""
    aside = set_aside(folder)
    if aside is not None:
        aside.rename(folder)


def set_aside(folder: Path) -> Path | None:
    """The newest folder that a killed `replace_folder` has set aside, if nothing has the name."""
    if os.path.lexists(folder) or not folder.parent.is_dir():
        return None
    hidden = re.compile(rf"\.{re.escape(folder.name)}\.[0-9a-f]{{8}}\.old")
    found = [path for path in folder.parent.iterdir() if hidden.fullmatch(path.name)]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def _swap(fresh: Path, folder: Path) -> Path:
    """Replace the folder; returns where the earlier one is now."""
    if exchange(fresh, folder):
        return fresh
    old = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.old")
    try:
        folder.rename(old)
        fresh.rename(folder)
    except BaseException:  # an interrupt too: the caller removes `fresh`
        put_back(folder)
        raise
    return old


def exchange(one: Path, other: Path) -> bool:
    """Let two paths change places in one call. False where the system or the file system cannot."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return bool(call(_CURRENT_FOLDER, os.fsencode(one), _CURRENT_FOLDER, os.fsencode(other), _EXCHANGE) == 0)
