"""The sentences that were given to speakers: how many are open, and which have become stale unused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from voxcpm.server.voices.files import only_writer

STALE = timedelta(hours=1)
"""Time after its end at which an unused sentence is deleted: a check that began in time has ended by then."""


def remove_stale(consents: Path, now: datetime | None = None) -> int:
    """Delete the sentences in a folder of consents that ended unused. Return how many others wait for their recording."""
    limit = (now or datetime.now(UTC)) - STALE
    folder, waiting = consents / "challenges", 0
    if not folder.is_dir():
        return 0
    with only_writer(consents):
        for path in folder.glob("*.json"):
            ends = _unused_until(path)
            if ends is None:
                continue
            if ends < limit:
                path.unlink(missing_ok=True)
            else:
                waiting += 1
    return waiting


def _unused_until(path: Path) -> datetime | None:
    """Return the end of a sentence that no recording has used up; None for a used one and for a file of another kind."""
    try:
        challenge = json.loads(path.read_text(encoding="utf-8"))
        ends = datetime.fromisoformat(challenge["expires"])
        return ends if challenge.get("statement_sha256") is None and ends.tzinfo is not None else None
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None
