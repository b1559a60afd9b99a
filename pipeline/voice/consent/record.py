"""The record of a checked consent, as it is stored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Verdict = Literal["verified", "plausible", "refused"]
ACCEPTED = ("verified", "plausible")


@dataclass(frozen=True)
class Record:
    """What was said, heard and compared. Seconds are of speech. It holds no voiceprint."""

    id: str
    verdict: Verdict
    reasons: tuple[str, ...]  #: why it was refused
    speaker: str
    speaker_id: str | None
    recipient: str
    purposes: tuple[str, ...]
    language: str
    challenge: str
    sentence: str
    words: tuple[str, ...]
    missing_words: tuple[str, ...]
    transcript: str
    cer: float | None  #: of the transcript against the sentence; None if nothing was recognized
    statement_sha256: str
    statement_s: float
    level_db: float | None
    snr_db: float | None
    reference_sha256: tuple[str, ...]
    reference_s: tuple[float, ...]
    cosine: tuple[float | None, ...]  #: of the statement with each reference; None: too short to compare
    least_cosine: tuple[float, ...]
    encoder: str
    recognizer: str
    at: str
    expires: str | None  #: last day of the consent, ISO 8601; None: until it is withdrawn
    tool: str
    audio: str | None = None  #: name of the recording beside the record; a refused one is not kept
    stretch_cosine: tuple[float | None, ...] = ()  #: of the statement with the least similar 3 s of each reference
    schema: int = 1

    @property
    def accepted(self) -> bool:
        """Return True if the check did not refuse the consent."""
        return self.verdict in ACCEPTED

    def state(self, now: datetime) -> str:
        """Return the verdict, or `expired` for an accepted consent whose last day is past."""
        past = self.expires is not None and now.date().isoformat() > self.expires
        return "expired" if self.accepted and past else self.verdict


def record_id(statement_sha256: str, reference_sha256: Sequence[str], challenge: str) -> str:
    """Return 16 hex digits: the same for the same recording, references and challenge."""
    text = "\n".join([statement_sha256, *sorted(reference_sha256), challenge])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
