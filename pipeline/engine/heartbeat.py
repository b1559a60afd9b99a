"""Marks: which stage and recording of a session a worker is at, noted on disk where its death cannot take it away."""

from __future__ import annotations

import hashlib
from pathlib import Path


def mark_path(marks: Path, session_id: str) -> Path:
    """Where a worker notes which item of a session it is at."""
    return marks / f"{hashlib.sha256(session_id.encode()).hexdigest()[:24]}.mark"


def write_mark(path: Path, stage: str, source_id: str, done_s: float = 0.0) -> None:
    """Note the item at work (source id "" before the first one) and the seconds of audio the stage is through with.

    OSError when it cannot be written.
    """
    # Replaced whole: who is killed in the middle of it must not leave an empty mark that blames nobody.
    draft = path.with_suffix(".new")
    draft.write_text(f"{stage}\n{source_id}\n{done_s:.3f}", encoding="utf-8")
    draft.replace(path)


def read_mark(path: Path) -> tuple[str, str, float]:
    """(stage, source id, seconds of audio done) that were at work; empty and 0 where nothing was noted."""
    try:
        stage, source_id, done_s = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return "", "", 0.0
    return stage, source_id, float(done_s)


def mark_time(path: Path) -> int:
    """When the mark was last written (nanoseconds of its file system's clock); 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
