"""A full disk: the run's fault and never a recording's, whoever meets it and in whatever words."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_FULL_BYTES = 64 * 1024


def is_full_disk(error: BaseException) -> bool:
    """Whether the system says that there is no space left, on the disk or in somebody's quota."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def has_no_space(path: str | Path) -> bool:
    """Whether the disk of a folder (or of the nearest one above it that is there) is full: libsndfile and FFmpeg only say
    "system error" then."""
    folder = next((f for f in (Path(path), *Path(path).parents) if f.is_dir()), Path("/"))
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize < _FULL_BYTES
