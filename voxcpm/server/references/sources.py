"""Where the clip of a request may come from: a data: URL, an upload, or an https address of a named host. Never a path."""

from __future__ import annotations

import base64
import binascii

from voxcpm.errors import AudioError
from voxcpm.server.references.decode import MOST_BYTES
from voxcpm.server.references.fetch import Fetcher

MEDIA_TYPES = ("audio/", "video/webm")
"""A browser's recorder calls a clip without a picture video/webm."""


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
