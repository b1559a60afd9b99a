"""Marks: which stage and recording of a session a worker is at, noted on disk where its death cannot take it away."""

from __future__ import annotations

import hashlib
from pathlib import Path


def mark_path(marks: Path, session_id: str) -> Path:
    """Where a worker notes which item of a session it is at."""
    return marks / f"{hashlib.sha256(session_id.encode()).hexdigest()[:24]}.mark"


def write_mark(path: Path, stage: str, source_id: str) -> None:
    """Note the item at work (source id "" before the first one); OSError when it cannot be written."""
    # Replaced whole: who is killed in the middle of it must not leave an empty mark that blames nobody.
    draft = path.with_suffix(".new")
    draft.write_text(f"{stage}\n{source_id}", encoding="utf-8")
    draft.replace(path)


def read_mark(path: Path) -> tuple[str, str]:
    """(stage, source id) that were at work; empty where nothing was noted."""
    try:
        stage, _, source_id = path.read_text(encoding="utf-8").partition("\n")
    except FileNotFoundError:
        return "", ""
    return stage, source_id


def mark_time(path: Path) -> int:
    """When the mark was last written (nanoseconds of its file system's clock); 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
