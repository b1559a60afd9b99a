"""WAV: its header, and the chunks that hold tags: LIST INFO, `AIGC`, and `id3 ` for programs that read only that one."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import IO

from voxcpm.provenance.id3 import id3_tag, read_id3
from voxcpm.provenance.statement import AIGC, COMMENT, ENCODER

UNKNOWN = 0xFFFFFFFF
"""The size of a stream whose end is not known."""

_INFO = {ENCODER: b"ISFT", COMMENT: b"ICMT"}
_CHUNKS = 1000
"""Most chunks that are looked at in one file."""
_CHUNK_BYTES = 1 << 20
"""Longest chunk of tags that is read."""


def wav_header(rate: int, samples: int | None, tags: Mapping[str, str] | None = None) -> bytes:
    """Return all bytes before the samples of a mono 16-bit WAV. samples None: the sizes are those of a stream.

    The length does not depend on `samples`, so that a header can be replaced when the end is known.
    """
    chunks = _tag_chunks(tags) if tags else b""
    data = UNKNOWN if samples is None else 2 * samples
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    whole = UNKNOWN if samples is None else 4 + len(form) + len(chunks) + 8 + data
    if max(data, whole) > UNKNOWN:
        raise ValueError("the audio is too long for a WAV (4 GB); write a FLAC")
    return struct.pack("<4sI4s", b"RIFF", whole, b"WAVE") + form + chunks + struct.pack("<4sI", b"data", data)


def _tag_chunks(tags: Mapping[str, str]) -> bytes:
    info = b"INFO" + b"".join(
        _chunk(_INFO[name], text.encode("ascii") + b"\0") for name, text in tags.items() if name in _INFO
    )
    label = _chunk(b"AIGC", tags[AIGC].encode("ascii")) if AIGC in tags else b""
    return _chunk(b"LIST", info) + label + _chunk(b"id3 ", id3_tag(tags))


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack("<4sI", name, len(body)) + body + b"\0" * (len(body) % 2)


def read_riff(file: IO[bytes]) -> Iterator[dict[str, str]]:
    """Yield the tags of each chunk of a WAV; the file is after `WAVE`. The samples may come first, if their size is stated."""
    for _ in range(_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            break
        name, size = struct.unpack("<4sI", head)
        after = file.tell() + size + size % 2
        if name in (b"LIST", b"AIGC", b"id3 ", b"ID3 ") and size <= _CHUNK_BYTES:
            yield _read_chunk(name, file.read(size))
        file.seek(after)


def _read_chunk(name: bytes, body: bytes) -> dict[str, str]:
    if name == b"AIGC":
        return {AIGC: _text(body)}
    if name != b"LIST":
        return read_id3(body)
    found, at = dict[str, str](), 4
    names = {chunk: tag for tag, chunk in _INFO.items()}
    while body[:4] == b"INFO" and at + 8 <= len(body):
        chunk, size = struct.unpack_from("<4sI", body, at)
        if chunk in names:
            found[names[chunk]] = _text(body[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
    return found


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode("utf-8", "replace")
