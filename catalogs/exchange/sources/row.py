"""One row of a source: what a clip is said to be, and its audio. Nothing of it is trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from catalogs.vocabulary.rights import RIGHTS_NAMES, RightsError, rights_of

LARGEST_BYTES = 512 * 1024 * 1024
"""Largest audio file that is read."""

_NAMES: dict[str, tuple[str, ...]] = {
    "id": ("segment_id", "id", "fid", "utt_id", "utterance_id", "key"),
    "text": ("text", "transcript", "transcription", "sentence", "normalized_text"),
    "language": ("language_code", "language", "lang", "locale"),
    "speaker": ("speaker", "speaker_id", "spk", "client_id"),
    "session": ("session", "session_id"),
    "gender": ("gender",),
}
"""Our name of a fact -> the names that manifests give it, the best first."""
_SAID_BY = ("manifest", "sidecar", "rules", "corpus")
"""Who may have stated a license: our own exports say so."""
AUDIO = ("audio", "audio_filepath", "audio_path", "path", "file", "file_name", "wav", "filename")


class RowError(ValueError):
    """A row cannot become a clip; the message is its reason in the quarantine."""


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be read. name: its place in the source."""

    name: str
    reason: str


@dataclass(frozen=True)
class Row:
    """A row. name: its place, the same in every run; facts: by our names; audio: reads the bytes, or raises RowError.

    start_s, stop_s: the part of the audio that is the clip, in seconds; None: all of it.
    """

    name: str
    facts: Mapping[str, Any]
    audio: Callable[[], bytes]
    start_s: float | None = None
    stop_s: float | None = None


@dataclass(frozen=True)
class Roots:
    """The folders that audio may be read from: that of the source, and those that the user gave."""

    folders: tuple[Path, ...]

    @classmethod
    def of(cls, base: Path, more: Iterable[Path]) -> Roots:
        """Return the roots, resolved: a link that leads out of them is followed and refused."""
        return cls(tuple(folder.resolve() for folder in (base, *more)))

    def read(self, name: str, beside: Path) -> bytes:
        """Return the bytes of a file that a row names, relative to the folder `beside`. Raises RowError outside of the roots."""
        if "://" in name or "\0" in name:
            raise RowError(f"its audio {name[:200]!r} is not a file of this machine; voxmill prepare reads URLs")
        try:
            file = (beside / name).resolve()
            if not any(file.is_relative_to(folder) for folder in self.folders):
                raise RowError(f"its audio {name[:200]!r} is outside of {self.folders[0]}; give its folder with --root")
            if not file.is_file():
                raise RowError(f"its audio {name[:200]!r} does not exist")
            if file.stat().st_size > LARGEST_BYTES:
                raise RowError(
                    f"its audio has {file.stat().st_size / 1e6:.0f} MB; clips have {LARGEST_BYTES / 1e6:.0f} at most"
                )
            return file.read_bytes()
        except (OSError, RuntimeError) as error:
            raise RowError(f"its audio {name[:200]!r} cannot be read ({type(error).__name__})") from None


def facts_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a row by our names, and its `rights`. Raises RowError for words or a consent that cannot be read."""
    found: dict[str, Any] = {}
    for ours, names in _NAMES.items():
        value = next((row[name] for name in names if row.get(name) not in (None, "")), None)
        if value is not None:
            if isinstance(value, dict | list):
                raise RowError(f"its {ours} is a {type(value).__name__}, not text")
            found[ours] = str(value).strip() or None
    try:
        # `speaker_id` is the speaker here, as NeMo and others write it, not the owner's name of one.
        stated = {name: row.get(name) for name in (*RIGHTS_NAMES, "licence")}
        said_by = row.get("license_source")
        found["rights"] = rights_of(stated, said_by if said_by in _SAID_BY else "manifest")
    except RightsError as error:
        raise RowError(str(error)) from None
    if row.get("words"):
        found["words"] = words_of(row["words"])
    return found


def words_of(value: Any) -> list[dict[str, Any]]:
    """Return words with times from the start of the clip. Raises RowError for another shape."""
    words = []
    try:
        for one in value:
            start, end, p = (None if one.get(key) is None else float(one[key]) for key in ("start", "end", "p"))
            if not all(number is None or math.isfinite(number) for number in (start, end, p)):
                raise ValueError
            words.append({"word": str(one.get("word", one.get("text"))), "start": start, "end": end, "p": p})
    except (TypeError, ValueError, AttributeError, KeyError):
        raise RowError("its words are not a list of {word, start, end} with numbers") from None
    return words


def number(value: Any, name: str) -> float | None:
    """Return a number of seconds; None for none. Raises RowError for anything else."""
    if value in (None, ""):
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise RowError(f"its {name} {str(value)[:50]!r} is not a number of seconds")
    return seconds


def is_audio(name: str) -> bool:
    """Return True for the file name of an audio file that libsndfile reads."""
    return PurePosixPath(name).suffix.lower() in {
        ".flac",
        ".wav",
        ".mp3",
        ".ogg",
        ".opus",
        ".oga",
        ".aiff",
        ".aif",
        ".au",
    }
