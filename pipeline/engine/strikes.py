"""Deaths of workers, counted on disk: a file that kills its worker is found out even when the driver is killed too."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path


class Strikes:
    """How often each session has cost a worker; a strike is on disk, fsynced, before anything is done about it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def count(self, session_id: str) -> int:
        """Strikes of this session so far."""
        path = self._path(session_id)
        if not path.exists():
            return 0
        return int(json.loads(path.read_text(encoding="utf-8"))["strikes"])

    def add(self, session_id: str, stage: str, reason: str) -> int:
        """One more strike; returns the new count."""
        count = self.count(session_id) + 1
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(session_id)
        temporary = path.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump({"session_id": session_id, "strikes": count, "stage": stage, "reason": reason}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        return count

    def clear(self, session_id: str) -> None:
        """Forget a session that came through or was condemned."""
        self._path(session_id).unlink(missing_ok=True)

    def _path(self, session_id: str) -> Path:
        return self._folder / f"{hashlib.sha256(session_id.encode()).hexdigest()[:24]}.json"
