"""Consents: recordings in which speakers allow that their voice is used, kept as evidence beside the stored voices."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from voxcpm.server.voices.files import ID, new_id, only_writer, read_record, read_records, write_json
from voxcpm.weights.atomic import write_file

MOST_CONSENTS = 10_000
MOST_NAME = 256


@dataclass(frozen=True)
class Consent:
    """The record of a consent. language: a BCP 47 tag of the recording."""

    name: str
    language: str
    mime_type: str = ""
    sha256: str = ""  #: of the recording
    challenge: str = ""  #: id of the sentence that is read in it; empty: it is not checked
    id: str = field(default_factory=lambda: new_id("cons"))
    created_at: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(cls, record: dict[str, Any]) -> Consent | None:
        """Return the consent of a stored record; None if it is not one."""
        known = {f.name for f in fields(cls)}
        values = {name: value for name, value in record.items() if name in known}
        right = isinstance(values.get("language"), str) and isinstance(values.get("created_at"), int)
        return cls(**values) if right else None

    def json(self) -> dict[str, Any]:
        """Return OpenAI's object."""
        about = {"id": self.id, "created_at": self.created_at, "name": self.name, "language": self.language}
        return {"object": "audio.voice_consent", **about, **({"challenge": self.challenge} if self.challenge else {})}


class ConsentFolder:
    """Consents in a folder: `cons_<id>.recording`, and `cons_<id>.json`, which is written last and counts."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def all(self) -> list[Consent]:
        """Return the consents, latest first."""
        found = (Consent.of(record) for record in read_records(self.root).values())
        return sorted((one for one in found if one is not None), key=lambda consent: (-consent.created_at, consent.id))

    def find(self, consent_id: str) -> Consent | None:
        """Return the consent with this id. It reads one file, however many consents there are."""
        if ID.fullmatch(consent_id) is None:
            return None
        record = read_record(self.root / f"{consent_id}.json")
        return Consent.of(record) if record is not None else None

    def add(self, name: str, language: str, recording: bytes, mime_type: str, challenge: str = "") -> Consent:
        """Store a recording. Raises ValueError if there are too many."""
        consent = Consent(name, language, mime_type, hashlib.sha256(recording).hexdigest(), challenge)
        with only_writer(self.root):
            if len(list(self.root.glob("cons_*.json"))) >= MOST_CONSENTS:
                raise ValueError(f"there are {MOST_CONSENTS} consents: delete one first")
            write_file(self._file(consent, "recording"), recording)
            write_json(self._file(consent, "json"), vars(consent))
        return consent

    def recording(self, consent: Consent) -> Path:
        """Return the path of a consent's recording."""
        return self._file(consent, "recording")

    def rename(self, consent: Consent, name: str) -> Consent:
        """Change the label of a consent."""
        changed = replace(consent, name=name)
        with only_writer(self.root):
            write_json(self._file(consent, "json"), vars(changed))
        return changed

    def delete(self, consent: Consent) -> None:
        """Delete a consent and its recording."""
        with only_writer(self.root):
            self._file(consent, "json").unlink(missing_ok=True)
            self._file(consent, "recording").unlink(missing_ok=True)

    def _file(self, consent: Consent, suffix: str) -> Path:
        return self.root / f"{consent.id}.{suffix}"
