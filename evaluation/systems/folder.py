"""A folder of audio files as a system: what another program has made, or recordings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.errors import EvaluationError, SpeakError
from evaluation.systems.base import Ask, Speech

ENDINGS = (".wav", ".flac", ".ogg", ".mp3", ".opus")


class Folder:
    """Files named by an item's id or its name in the list; with seeds, `NAME-SEED.wav` comes first."""

    batch = 1

    def __init__(self, argument: str) -> None:
        self._folder = Path(argument)
        if not self._folder.is_dir():
            raise EvaluationError(f"no folder of audio at {argument}")
        self.name = self._folder.name
        self._files = {path.stem: path for path in sorted(self._folder.rglob("*")) if path.suffix.lower() in ENDINGS}
        if not self._files:
            raise EvaluationError(f"{argument} has no audio file ({', '.join(ENDINGS)})")
        self.seeded = any(stem.rpartition("-")[2].isdigit() and stem.rpartition("-")[0] for stem in self._files)

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        return {"kind": "folder", "folder": str(self._folder.absolute())}

    def speak(self, asks: Sequence[Ask]) -> list[Speech | Exception]:
        """See `System`."""
        return [self._read(ask) for ask in asks]

    def _read(self, ask: Ask) -> Speech | Exception:
        stems = (ask.item.id, Path(ask.item.name).stem)
        for stem in (*(f"{stem}-{ask.seed}" for stem in stems), *stems):
            if path := self._files.get(stem):
                return read_speech(path)
        return SpeakError(f"no file for {ask.item.name or ask.item.id} in {self._folder}")

    def close(self) -> None:
        """See `System`."""


def read_speech(path: Path) -> Speech | Exception:
    """Return a file as an answer."""
    import soundfile

    from catalogs.files import one_line

    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        return SpeakError(f"{path}: the audio cannot be read ({one_line(error)})")
    return Speech(samples.mean(axis=1), int(rate))
