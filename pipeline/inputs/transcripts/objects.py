"""JSON beside a recording: the output of recognizers (`segments` with start, end and text), or an object with its text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipeline.inputs.transcripts.formats import Transcript, TranscriptError, timed
from pipeline.records import TimedText

_TEXT = ("text", "transcript", "transcription", "sentence", "utterance", "word")
_START = ("start", "start_s", "begin", "offset", "start_time", "from")
_END = ("end", "end_s", "stop", "end_time", "to")
_LISTS = ("segments", "utterances", "sentences", "chunks", "words", "results")


def read_objects(text: str) -> Transcript:
    """Read one object, a list of objects, or one object per line. Raises TranscriptError if they hold no text."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        try:
            value = [json.loads(line) for line in text.split("\n") if line.strip()]
        except json.JSONDecodeError:
            raise TranscriptError(f"it is not JSON ({error.msg}, line {error.lineno})") from None
    return spans_of(value)


def spans_of(value: Any) -> Transcript:
    """Return the transcript in a parsed JSON value: timed if every part has a start and an end (or a duration), in seconds."""
    if isinstance(value, Mapping):
        for name in _LISTS:
            # `words` may also be a list of strings, beside the text itself.
            if isinstance(value.get(name), list) and any(_says_something(item) for item in value[name]):
                return spans_of(value[name])
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise TranscriptError("it has no `text`, and no `segments` with start, end and text")
    parts = [(_first(item, _TEXT), _time(item)) for item in value]
    texts = [" ".join(str(said).split()) for said, _ in parts if said]
    if not texts:
        raise TranscriptError("it has no `text`, and no `segments` with start, end and text")
    if all(times is not None for said, times in parts if said):
        return timed(TimedText(*times, " ".join(str(said).split())) for said, times in parts if said and times)
    return Transcript(" ".join(texts))


def _says_something(item: Any) -> bool:
    return isinstance(item, Mapping) and _first(item, _TEXT) is not None


def _time(item: Mapping[str, Any]) -> tuple[float, float] | None:
    if isinstance(item.get("timestamp"), (list, tuple)) and len(item["timestamp"]) == 2:
        start, end = item["timestamp"]
    else:
        start, end = _first(item, _START), _first(item, _END)
        if end is None and start is not None and _is_number(item.get("duration")) and _is_number(start):
            end = float(start) + float(item["duration"])
    return (float(start), float(end)) if _is_number(start) and _is_number(end) else None


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return value.replace(".", "", 1).isdigit()
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _first(item: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((item[name] for name in names if item.get(name) not in (None, "")), None)
