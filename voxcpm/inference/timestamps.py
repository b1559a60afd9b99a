"""Start and end times of the segments, words or characters of a text: Whisper's forced alignment through stable-ts."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

Level = Literal["segment", "word", "char"]


def aligner_library() -> Any:
    """Import and return the library. Raises RuntimeError with the install command if it is missing."""
    try:
        return import_module("stable_whisper")
    except ImportError:
        raise RuntimeError("timestamps need the Python package stable-ts: pip install stable-ts") from None


def write_timestamps(
    audio: Path,
    text: str,
    out: Path,
    level: Level = "word",
    model: str = "base",
    language: str | None = None,
    device: str | None = None,
) -> None:
    """Align the text with the audio and write [{"text", "start", "end"}] in seconds.

    Raises RuntimeError if the library is missing or the alignment fails.
    """
    library = aligner_library()
    whisper = library.load_model(model, device=None if device in (None, "auto") else device)
    if language is None:
        language = whisper.transcribe(str(audio)).language
    result = whisper.align(str(audio), text, language=language)
    if result is None:
        raise RuntimeError("the text could not be aligned with the audio")
    rows = [{"text": s.text.strip(), "start": float(s.start), "end": float(s.end)}
            for s in (result.segments if level == "segment" else result.all_words())]  # fmt: skip
    if level == "char":
        rows = [part for row in rows for part in split_evenly(row)]
    document = {"audio": audio.name, "level": level, "language": language, "timestamps": rows}
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.tmp")
    temporary.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    temporary.replace(out)


def split_evenly(word: dict[str, Any]) -> list[dict[str, Any]]:
    """Split a word into its characters, all with the same duration."""
    letters = word["text"]
    share = (word["end"] - word["start"]) / max(len(letters), 1)
    return [
        {"text": letter, "start": word["start"] + i * share, "end": word["start"] + (i + 1) * share}
        for i, letter in enumerate(letters)
    ]
