"""Vorbis comments: the tags of FLAC, Ogg Vorbis and Ogg Opus."""

from __future__ import annotations

from collections.abc import Mapping

from voxcpm.provenance.statement import ENCODER

_COMMENTS = 1000
"""Most comments that are read of one file."""


def vorbis_comments(tags: Mapping[str, str], vendor: str | None = None) -> bytes:
    """Return the list of comments as bytes. vendor: the encoding library; the program if not given."""
    texts = [f"{name}={text}".encode() for name, text in tags.items()]
    named = (vendor or tags.get(ENCODER, "voxmill")).encode()
    return _sized(named) + len(texts).to_bytes(4, "little") + b"".join(map(_sized, texts))


def vendor_of(data: bytes) -> str:
    """Return the encoding library that a list of comments names."""
    return _take(data, 0)[0].decode("utf-8", "replace")


def read_comments(data: bytes) -> dict[str, str]:
    """Return the comments by name; of comments with one name, the first. What is cut off is left out."""
    _, at = _take(data, 0)
    count, at = int.from_bytes(data[at : at + 4], "little"), at + 4
    found: dict[str, str] = {}
    for _ in range(min(count, _COMMENTS)):
        if at + 4 > len(data):
            break
        text, at = _take(data, at)
        name, equals, value = text.decode("utf-8", "replace").partition("=")
        if equals:
            found.setdefault(name.upper(), value)
    return found


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


def _take(data: bytes, at: int) -> tuple[bytes, int]:
    """Return (bytes, position after them) of what is stored with its size."""
    end = at + 4 + int.from_bytes(data[at : at + 4], "little")
    return data[at + 4 : end], end
