"""Deaths of workers, counted on disk: a file that kills its worker is found out even when the driver is killed too."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

ALONE_AFTER = 2
"""After this many strikes a session runs alone on a fresh actor."""
MOST = 6
"""This many strikes condemn whatever was at work, even if it was something else each time."""


@dataclass(frozen=True)
class Strike:
    """The latest death a session cost: how many there were, and the stage and recording that were at work."""

    session_id: str
    strikes: int = 0
    stage: str = ""
    source_id: str = ""
    reason: str = ""

    def condemns(self, before: Strike) -> bool:
        """Whether what was at work is to blame: it was so in the death `before` too, or there were too many deaths.

        Two deaths in a row at the same place are not an accident. Two at different places may well have another cause
        (the kernel when memory is short, an operator), and an innocent recording must not pay for it.
        """
        if self.strikes <= ALONE_AFTER:
            return False
        same = (self.stage, self.source_id) == (before.stage, before.source_id)
        return same or not before.source_id or self.strikes >= MOST


class Strikes:
    """How often each session has cost a worker; a strike is on disk, fsynced, before anything is done about it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def last(self, session_id: str) -> Strike:
        """The session's latest strike; one of count 0 if there is none, or if its file was damaged by a crash."""
        try:
            return Strike(**json.loads(self._path(session_id).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return Strike(session_id)

    def count(self, session_id: str) -> int:
        """Strikes of this session so far."""
        return self.last(session_id).strikes

    def add(self, session_id: str, stage: str, reason: str, source_id: str = "") -> Strike:
        """One more strike; returns it. OSError when it cannot be written."""
        strike = Strike(session_id, self.count(session_id) + 1, stage, source_id, reason)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(session_id)
        temporary = path.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(asdict(strike), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        return strike

    def clear(self, session_id: str) -> None:
        """Forget a session that was committed."""
        self._path(session_id).unlink(missing_ok=True)

    def _path(self, session_id: str) -> Path:
        return self._folder / f"{hashlib.sha256(session_id.encode()).hexdigest()[:24]}.json"
