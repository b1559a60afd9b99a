"""Deaths of workers, counted on disk: a file that kills its worker is identified even if the driver is killed too."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

ALONE_AFTER = 2
"""After this many strikes a session runs alone on a fresh actor."""
MOST = 6
"""After this many strikes the current item is quarantined, even if it was a different one each time."""


@dataclass(frozen=True)
class Strike:
    """The latest death of a worker that a session caused: the number of deaths, and the stage and recording being
    processed."""

    session_id: str
    strikes: int = 0
    stage: str = ""
    source_id: str = ""
    reason: str = ""

    def condemns(self, before: Strike) -> bool:
        """Return True if the item being processed is to blame: it was the same in the death `before`, or there were too
        many deaths.

        Two consecutive deaths at the same place are not an accident. Two at different places may have another cause (the
        kernel when memory is short, an operator), and an innocent recording must not be quarantined for it.
        """
        if self.strikes <= ALONE_AFTER:
            return False
        same = (self.stage, self.source_id) == (before.stage, before.source_id)
        return same or not before.source_id or self.strikes >= MOST


class Strikes:
    """Counts how often each session has killed a worker. A strike is on disk, fsynced, before it has any effect."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def last(self, session_id: str) -> Strike:
        """Return the session's latest strike; one with count 0 if there is none, or if its file was damaged by a crash."""
        try:
            return Strike(**json.loads(self._path(session_id).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return Strike(session_id)

    def count(self, session_id: str) -> int:
        """Return the number of strikes of this session so far."""
        return self.last(session_id).strikes

    def add(self, session_id: str, stage: str, reason: str, source_id: str = "") -> Strike:
        """Add a strike and return it. Raises OSError if it cannot be written."""
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
