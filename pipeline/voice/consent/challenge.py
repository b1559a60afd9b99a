"""A challenge: one sentence for one speaker, to be read within a day, for one recording."""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from pipeline.voice.consent.sentences import DEFAULT_PURPOSES, WORDS, wording

VALID_H = 24.0
"""Hours within which a sentence has to be read and checked."""
ID = re.compile(r"[0-9a-f]{16}")
_LONGEST = 120
"""Characters of a name or a purpose."""


@dataclass(frozen=True)
class Challenge:
    """What was asked. Times are ISO 8601 in UTC."""

    id: str
    speaker: str
    recipient: str
    purposes: tuple[str, ...]
    language: str  #: of the sentence
    sentence: str
    words: tuple[str, ...]
    created: str
    expires: str  #: of the sentence
    speaker_id: str | None = None  #: a pseudonym, as in a corpus
    consent_expires: str | None = None  #: the last day of the consent itself; None: until it is withdrawn
    statement_sha256: str | None = None  #: of the recording that has used it up

    def is_stale(self, now: datetime) -> bool:
        """Return True if the time to read the sentence is over."""
        return now > datetime.fromisoformat(self.expires)

    def used_by(self, statement_sha256: str) -> Challenge:
        """Return the challenge as used up by a recording."""
        return replace(self, statement_sha256=statement_sha256)


def new_challenge(
    speaker: str,
    recipient: str,
    language: str,
    purposes: Sequence[str] = DEFAULT_PURPOSES,
    hours: float = VALID_H,
    speaker_id: str | None = None,
    consent_expires: date | None = None,
    now: datetime | None = None,
) -> Challenge:
    """Return a new challenge with random words. Raises ValueError for texts that cannot be read aloud."""
    if not 0 < hours <= 24 * 31:
        raise ValueError(f"{hours:g} hours for the sentence are outside 0 to 744: give 24")
    now = (now or datetime.now(UTC)).astimezone(UTC)
    if consent_expires is not None and consent_expires < now.date():
        raise ValueError(f"the consent would end on {consent_expires}, which is past: give a later day")
    speaker, recipient = _line(speaker, "the speaker"), _line(recipient, "the recipient")
    said = tuple(_line(purpose, "a purpose") for purpose in purposes)
    if not 1 <= len(said) <= 4:
        raise ValueError(f"{len(said)} purposes are given: give 1 to 4")
    spoken = wording(language)
    words = spoken.draw(WORDS)
    # The speaker reads the day of the calendar on the wall.
    sentence = spoken.sentence(speaker, recipient, said, now.astimezone().date(), words)
    return Challenge(
        id=secrets.token_hex(8),
        speaker=speaker,
        recipient=recipient,
        purposes=said,
        language=spoken.code,
        sentence=sentence,
        words=words,
        created=stamp(now),
        expires=stamp(now + timedelta(hours=hours)),
        speaker_id=speaker_id,
        consent_expires=consent_expires.isoformat() if consent_expires else None,
    )


def stamp(at: datetime) -> str:
    """Return a time as ISO 8601 in UTC with seconds."""
    return at.astimezone(UTC).isoformat(timespec="seconds")


def _line(text: str, what: str) -> str:
    """Return a text as one line of letters. Raises ValueError if it is empty, long, or holds nothing to say."""
    line = " ".join("".join(c if unicodedata.category(c)[0] != "C" else " " for c in text).split())
    if not any(c.isalnum() for c in line):
        raise ValueError(f"{what} is empty: give a name or a text that can be read aloud")
    if len(line) > _LONGEST:
        raise ValueError(f"{what} has {len(line)} characters: give at most {_LONGEST}")
    return line
