"""Start and end times of the segments, words or characters of a text: Whisper's forced alignment through stable-ts.

The result has the official package's fields, and the language.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

Level = Literal["segment", "word", "char"]
LEVELS = ("segment", "word", "char")
BACKENDS = ("stable-ts",)


@dataclass
class TimestampItem:
    """A segment, word or character and its time in seconds."""

    text: str
    start: float
    end: float
    level: Level = "word"


@dataclass
class TimestampResult:
    """The times of a text in an audio file."""

    audio_path: str
    sample_rate: int  #: Hz
    backend: str
    level: Level
    text: str
    items: list[TimestampItem] = field(default_factory=list)
    warning: str | None = None  #: set if nothing was aligned
    language: str | None = None  #: code of the language that the aligner used


def aligner_library() -> Any:
    """Import and return the library. Raises RuntimeError with the install command if it is missing."""
    try:
        return import_module("stable_whisper")
    except ImportError:
        raise RuntimeError("timestamps need the Python package stable-ts: pip install stable-ts") from None


def align_audio_file(
    *,
    audio_path: str | Path,
    text: str,
    sample_rate: int,
    backend: str = "stable-ts",
    level: Level = "word",
    model_name: str = "base",
    device: str | None = None,
    language: str | None = None,
) -> dict[str, Any]:
    """Align a text with its audio and return a `TimestampResult` as a dict.

    sample_rate: of the audio, Hz, for the result only. model_name: a Whisper model. device: None or "auto": the library's
    choice. language: a code; detected if None.

    Raises ValueError for an unknown backend or level, RuntimeError if the library is missing or the alignment fails.
    """
    for name, value, known in (("backend", backend, BACKENDS), ("level", level, LEVELS)):
        if value not in known:
            raise ValueError(f"timestamp {name} {value!r} is not one of {', '.join(known)}")
    library = aligner_library()
    whisper = library.load_model(model_name, device=None if device in (None, "auto") else device)
    if language is None:
        language = whisper.transcribe(str(audio_path)).language
    aligned = whisper.align(str(audio_path), text, language=language)
    if aligned is None:
        raise RuntimeError("the text could not be aligned with the audio")
    items = extract_timestamp_items(aligned, level)
    warning = None if items else "no part of the text was aligned with the audio"
    return asdict(TimestampResult(str(audio_path), sample_rate, backend, level, text, items, warning, language))


def extract_timestamp_items(result: Any, level: Level) -> list[TimestampItem]:
    """Return the items of an aligner's result: an object, or mappings, with `segments` that have `words`."""
    segments = _field(result, "segments")
    if level == "segment":
        return _items(segments, level)
    words = [item for segment in segments for item in _items(_field(segment, "words"), "word")]
    return split_word_items_to_chars(words) if level == "char" else words


def split_word_items_to_chars(words: Sequence[TimestampItem]) -> list[TimestampItem]:
    """Split words into their characters; those of a word get the same duration. Words without text are left out."""
    characters = []
    for word in words:
        letters = word.text.strip()
        share = max(word.end - word.start, 0.0) / max(len(letters), 1)
        for i, letter in enumerate(letters):
            characters.append(TimestampItem(letter, word.start + i * share, word.start + (i + 1) * share, "char"))
    return characters


def _items(parts: Sequence[Any], level: Level) -> list[TimestampItem]:
    found = []
    for part in parts:
        # stable-ts names a word's text `word`, a segment's `text`.
        text = str((level == "word" and _field(part, "word")) or _field(part, "text")).strip()
        if text:
            found.append(TimestampItem(text, float(_field(part, "start") or 0), float(_field(part, "end") or 0), level))
    return found


def _field(part: Any, name: str) -> Any:
    """Return a field of an object or a mapping; an empty list if it is absent or None."""
    value = part.get(name) if isinstance(part, Mapping) else getattr(part, name, None)
    return [] if value is None else value


def write_timestamps(result: Mapping[str, Any], out: Path) -> None:
    """Write the result of `align_audio_file` as JSON, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.tmp")
    temporary.write_text(json.dumps(dict(result), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    temporary.replace(out)
