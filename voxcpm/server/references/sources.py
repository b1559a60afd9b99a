"""Where the clip of a request may come from: a data: URL, an upload, or an https address of a named host. Never a path."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from voxcpm.errors import AudioError
from voxcpm.server.references.decode import MOST_BYTES
from voxcpm.server.references.fetch import Fetcher

MEDIA_TYPES = ("audio/", "video/webm")
"""A browser's recorder calls a clip without a picture video/webm."""


@dataclass(frozen=True)
class Reference:
    """A clip as a request names it. text: its words, if speech shall continue the clip."""

    source: str | bytes
    text: str | None = None


def reference_of(fields: Mapping[str, Any]) -> Reference | None:
    """Return the clip that the fields `ref_audio`, `ref_text` and `references` name; None if there is none.

    Raises ValueError if they contradict each other or name more than one clip.
    """
    audio, text, listed = fields.get("ref_audio"), fields.get("ref_text"), fields.get("references")
    if isinstance(audio, list):
        audio = _only(audio, "ref_audio")
    if listed:
        if audio is not None or text is not None:
            raise ValueError("references stands for ref_audio and ref_text: give one of them")
        found = _only(listed, "references")
        if not isinstance(found, Mapping) or not isinstance(found.get("audio_path"), str):
            raise ValueError("references must hold one object with audio_path (a data: URL) and text")
        audio, text = found["audio_path"], found.get("text") or None
    if audio is None:
        if text:
            raise ValueError("ref_text is the transcript of ref_audio: give the clip, or leave both out")
        return None
    if not isinstance(audio, str | bytes) or not (text is None or isinstance(text, str)):
        raise ValueError("ref_audio must be a data: URL, and ref_text a text")
    return Reference(audio, text or None)


def _only(found: Any, name: str) -> Any:
    if not isinstance(found, list) or len(found) != 1:
        raise ValueError(f"{name} must hold one clip: the model takes one reference")
    return found[0]


async def read_source(source: str | bytes, fetcher: Fetcher) -> bytes:
    """Return the clip's bytes as they were sent. Raises AudioError if they may not be read."""
    if isinstance(source, bytes):
        return source
    kind = source[:8].lower()
    if kind.startswith("data:"):
        return _data(source)
    if kind.startswith(("https://", "http://")):
        return await fetcher.fetch(source)
    raise AudioError(
        "the reference must be a data: URL of audio, such as data:audio/wav;base64,...: paths are not read"
    )


def _data(url: str) -> bytes:
    """Return the bytes in a data: URL."""
    head, comma, body = url.partition(",")
    kind, *parameters = head[len("data:") :].lower().split(";")
    if not comma or not kind.strip().startswith(MEDIA_TYPES):
        raise AudioError("the reference's data: URL must have an audio type, such as data:audio/wav;base64,...")
    if "base64" not in (parameter.strip() for parameter in parameters):
        raise AudioError("the reference's data: URL must be coded in base64")
    if len(body) > MOST_BYTES * 4 // 3 + 4:
        raise AudioError(f"the reference is larger than {MOST_BYTES // 1_000_000} MB")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise AudioError("the reference's data: URL is not valid base64") from None
