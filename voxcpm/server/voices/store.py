"""A folder of stored voices: `voice_<id>.safetensors` with latents, and `voice_<id>.json`, which is written last and counts."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from voxcpm.server.settings import DEFAULT_VOICE, NAME
from voxcpm.server.voices.files import (
    Tensors,
    new_id,
    only_writer,
    read_records,
    read_tensors,
    write_json,
    write_tensors,
)

MOST_VOICES = 1_000
_KEPT = 64
"""Voices whose latents stay in memory."""

Origin = Literal["uploaded", "designed"]


@dataclass(frozen=True)
class Voice:
    """The record of a stored voice."""

    name: str
    kind: Origin
    id: str = field(default_factory=lambda: new_id("voice"))
    created_at: int = field(default_factory=lambda: int(time.time()))
    consent: str = ""  #: uploaded: a statement, or the id of a consent
    clip_sha256: str = ""  #: uploaded: of the clip as it was sent
    consent_record: str = ""  #: uploaded: id of the check of the consent for this clip
    ref_text: str = ""  #: the clip's words; speech then continues the clip
    speaker_description: str = ""
    mime_type: str = ""
    file_size: int = 0  #: bytes of the clip as it was sent
    seconds: float = 0.0  #: of audio in the reference
    description: str = ""  #: designed: what it was made from
    seed: int = 0
    checkpoint: str = ""  #: sha256 of the weights whose codec made the latents

    @classmethod
    def of(cls, record: dict[str, Any]) -> Voice | None:
        """Return the voice of a record, None if the record is not one."""
        known = {f.name: record[f.name] for f in fields(cls) if f.name in record}
        voice = cls(**{"kind": "uploaded", **known})
        types_match = all(isinstance(getattr(voice, name), type(value)) for name, value in vars(_PLAIN).items())
        is_ours = types_match and voice.id.startswith("voice_")
        return voice if is_ours and NAME.fullmatch(voice.name) and voice.kind in ("uploaded", "designed") else None


_PLAIN = Voice("a", "designed", seconds=0.0)


def clean_name(name: str) -> str:
    """Return a voice's name in lower case. Raises ValueError if it cannot be one."""
    lower = name.strip().lower()
    # Some letters outside ASCII become ASCII in lower case.
    if not name.isascii() or not NAME.fullmatch(lower):
        raise ValueError(
            "a voice's name has 1 to 64 letters a-z, digits, '.', '_' and '-', and starts with a letter or digit"
        )
    if lower == DEFAULT_VOICE:
        raise ValueError(f"the name {DEFAULT_VOICE!r} stands for no voice in requests: choose another name")
    return lower


class VoiceFolder:
    """Voices in a folder. Other processes may change it: it is read again when its time changes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._stamp: int | None = None
        self._voices: dict[str, Voice] = {}
        self._latents: OrderedDict[str, Tensors] = OrderedDict()

    def all(self) -> list[Voice]:
        """Return the voices by name."""
        return sorted(self._read().values(), key=lambda voice: voice.name)

    def find(self, name: str) -> Voice | None:
        """Return the voice with this name, in any case, or with this id."""
        found = self._read()
        lower = name.strip().lower()
        return found.get(lower) or next((voice for voice in found.values() if voice.id == lower), None)

    def latents(self, voice: Voice) -> Tensors:
        """Return a voice's latents: ref_audio_feat, audio_feat or both. Raises ValueError if its file is damaged."""
        if voice.id not in self._latents:
            self._latents[voice.id] = read_tensors(self._file(voice, "safetensors"))
        self._latents.move_to_end(voice.id)
        while len(self._latents) > _KEPT:
            self._latents.popitem(last=False)
        return self._latents[voice.id]

    def add(self, voice: Voice, tensors: Tensors, replace: bool = False) -> None:
        """Store a voice. replace: delete an earlier voice of this name. Raises FileExistsError and ValueError."""
        clean_name(voice.name)
        with only_writer(self.root):
            earlier = self.find(voice.name)
            if earlier is not None and not replace:
                raise FileExistsError(f"there is a voice {voice.name!r}: delete it first, or choose another name")
            if earlier is None and len(self._voices) >= MOST_VOICES:
                raise ValueError(f"there are {MOST_VOICES} voices: delete one first")
            write_tensors(self._file(voice, "safetensors"), tensors, voice.ref_text)
            if earlier is not None:
                self._remove(earlier)
            write_json(self._file(voice, "json"), vars(voice))

    def delete(self, name: str) -> Voice | None:
        """Delete a voice by its name or id. Return it, None if there is none."""
        with only_writer(self.root):
            voice = self.find(name)
            if voice is not None:
                self._remove(voice)
        return voice

    def _remove(self, voice: Voice) -> None:
        self._latents.pop(voice.id, None)
        self._file(voice, "json").unlink(missing_ok=True)
        self._file(voice, "safetensors").unlink(missing_ok=True)
        self._stamp = None

    def _file(self, voice: Voice, suffix: str) -> Path:
        return self.root / f"{voice.id}.{suffix}"

    def _read(self) -> dict[str, Voice]:
        """Return the voices by name."""
        try:
            stamp = os.stat(self.root).st_mtime_ns  # noqa: PTH116 (one call on a path that may be absent)
        except OSError:
            self._voices, self._stamp = {}, None
            return self._voices
        if stamp != self._stamp:
            voices = (Voice.of(record) for record in read_records(self.root).values())
            self._voices = {voice.name: voice for voice in voices if voice is not None}
            # A change within the resolution of the clock would not be seen: only an older time is trusted.
            self._stamp = stamp if time.time_ns() - stamp > 50_000_000 else None
        return self._voices
