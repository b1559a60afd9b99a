"""Checkpoints whose speech was marked on this machine, so that a payload of 16 bits leads to a name.

It is a list of JSON lines in `$VOXMILL_MARKS`, by default `~/.cache/voxmill/marks.jsonl`. Without it, detection gives the payload
only.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from voxcpm.watermark.code import payload_of


def registry_file() -> Path:
    """Return `$VOXMILL_MARKS`, otherwise `$XDG_CACHE_HOME/voxmill/marks.jsonl`, by default below ~/.cache."""
    if given := os.environ.get("VOXMILL_MARKS"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "voxmill" / "marks.jsonl"


def remember(digest: str | None, name: str | None) -> None:
    """Add a checkpoint. A folder that cannot be written does not stop speech: the payload then has no name."""
    if not digest or not name or name in known_names(payload_of(digest)):
        return
    line = json.dumps({"checkpoint": digest, "name": name}) + "\n"
    path = registry_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One write of less than a page in append mode: several programs may do it at the same time.
        with path.open("a", encoding="utf-8") as file:
            file.write(line)
    except OSError:
        return


def known_names(payload: int) -> list[str]:
    """Return the names of remembered checkpoints with this payload; several may share it. A damaged line is left out."""
    try:
        lines = registry_file().read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    names: list[str] = []
    for line in lines:
        try:
            entry = json.loads(line)
            digest, name = str(entry["checkpoint"]), entry["name"]
            if payload_of(digest) == payload and isinstance(name, str) and name not in names:
                names.append(name)
        except (ValueError, KeyError, TypeError):
            continue
    return names
