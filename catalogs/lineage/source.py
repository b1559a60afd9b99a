"""Which voxmill made a lineage: its version, and the commit if it runs from a checkout."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

_COMMIT = re.compile(r"[0-9a-f]{40,64}")


def voxmill_version() -> str:
    """Return the version of voxmill."""
    return importlib.metadata.version("voxmill")


def source_commit(root: Path | None = None) -> str | None:
    """Return the commit of a checkout, by default of the one that this code is in; None outside of a checkout.

    A package in an environment that lies within some other checkout is not taken for a part of it.
    """
    root = root or Path(__file__).parents[2]
    git = root / ".git"
    try:
        if git.is_file():  # a worktree
            git = (root / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()).resolve()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref:"):
            return head if _COMMIT.fullmatch(head) else None
        name = head.removeprefix("ref:").strip()
        shared = git / "commondir"
        home = (git / shared.read_text(encoding="utf-8").strip()).resolve() if shared.is_file() else git
        if (home / name).is_file():
            found = (home / name).read_text(encoding="utf-8").strip()
            return found if _COMMIT.fullmatch(found) else None
        packed = (home / "packed-refs").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return next((line.split()[0] for line in packed if line.endswith(f" {name}") and _COMMIT.match(line)), None)
