"""What is asked of the model, and the sessions that carry it through the engine: each utterance is a recording of its session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalogs.corpus.damage import reading
from catalogs.corpus.reader import Corpus
from catalogs.vocabulary.speech_length import usual_seconds
from pipeline.records import Recording, Session, Source


@dataclass(frozen=True)
class StoredClip:
    """A clip in a shard of a corpus. `corpus`: its absolute path."""

    corpus: str
    shard: str
    row: int

    def flac(self, opened: Corpus) -> bytes:
        """Return its FLAC bytes, given the opened corpus. Raises DamagedFileError for a shard that cannot be read."""
        with reading(Path(self.corpus) / self.shard):
            return bytes(opened.shard(self.shard).audio_buffer(self.row).to_pybytes())


Clip = StoredClip | str
"""A clip to condition on: of a corpus, or a path."""


@dataclass(frozen=True)
class SpeechRequest:
    """One utterance to be made. `reference` sets the voice, `prompt` with `prompt_text` is continued. `options`: fields of
    `voxcpm.inference.speak_options.SpeakOptions` that differ from those of the run."""

    text: str
    seed: int
    language: str | None = None
    description: str | None = None
    reference: Clip | None = None
    prompt: Clip | None = None
    prompt_text: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def expected_s(self) -> float:
        """The usual speaking time of the text in seconds."""
        return max(usual_seconds(self.text), 0.3)


@dataclass
class SpeechSession(Session):
    """A session whose recordings are utterances to be made, by source id."""

    requests: dict[str, SpeechRequest] = field(default_factory=dict)
    endings: dict[str, str] = field(default_factory=dict)
    """Why each utterance ended: `stop`, or what cut it."""
    generate_s: float = 0.0
    """Seconds that the model took."""


def speech_recordings(requests: Mapping[str, SpeechRequest], session_id: str, title: str) -> list[Recording]:
    """Return a recording for each request, by source id. Until it is made, its duration is the usual speaking time."""
    return [
        Recording(
            Source(
                source_id=source_id,
                path=f"{title}/{source_id}.flac",
                relative_path=f"{title}/{source_id}.flac",
                session_id=session_id,
                bytes=0,
                content_sha256="",
                language=request.language,
            ),
            duration_s=request.expected_s,
            channels=1,
            codec="flac",
        )
        for source_id, request in requests.items()
    ]
