"""Heartbeats ("marks"): the stage and item of a session that a worker is processing, recorded on disk to survive its death."""

from __future__ import annotations

import hashlib
from pathlib import Path


def mark_path(marks: Path, session_id: str) -> Path:
    """Return the file in which a worker records the item of a session that it is processing."""
    return marks / f"{hashlib.sha256(session_id.encode()).hexdigest()[:24]}.mark"


def write_mark(path: Path, stage: str, source_id: str, done_s: float = 0.0) -> None:
    """Record the item being processed (source id "" before the first one) and the seconds of audio that the stage has
    finished.

    Raises OSError if it cannot be written.
    """
    # Replaced as a whole: a worker that is killed during the write must not leave an empty mark, which would blame nothing.
    draft = path.with_suffix(".new")
    draft.write_text(f"{stage}\n{source_id}\n{done_s:.3f}", encoding="utf-8")
    draft.replace(path)


def read_mark(path: Path) -> tuple[str, str, float]:
    """Return (stage, source id, seconds of audio done) of the item being processed; empty and 0 if nothing was recorded."""
    try:
        stage, source_id, done_s = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return "", "", 0.0
    return stage, source_id, float(done_s)


def mark_time(path: Path) -> int:
    """Return when the mark was last written (nanoseconds of its file system's clock); 0 if there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
