"""FLAC: its blocks of metadata, written and read. The frames of audio are not touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO

from voxcpm.provenance.vorbis import read_comments, vorbis_comments

STREAM_INFO, COMMENTS = 0, 4
_BLOCKS = 128
"""Most blocks that are read of one file."""


def flac_head(stream_info: bytes, tags: Mapping[str, str] | None) -> bytes:
    """Return all bytes before the first frame. stream_info: the 34 bytes of its block."""
    if not tags:
        return b"fLaC" + _block(STREAM_INFO, stream_info, True)
    return b"fLaC" + _block(STREAM_INFO, stream_info, False) + _block(COMMENTS, vorbis_comments(tags), True)


def tagged_flac(data: bytes, tags: Mapping[str, str]) -> bytes:
    """Return a whole FLAC with these comments in place of those that it has."""
    blocks, at = [], 4
    for kind, body, last in _blocks(data):
        at += 4 + len(body)
        if kind != COMMENTS:
            blocks.append((kind, body))
        if last:
            break
    blocks.insert(1, (COMMENTS, vorbis_comments(tags)))
    written = (_block(kind, body, number == len(blocks)) for number, (kind, body) in enumerate(blocks, 1))
    return b"fLaC" + b"".join(written) + data[at:]


def read_flac(file: IO[bytes]) -> dict[str, str]:
    """Return the comments of a FLAC; the file is after `fLaC`."""
    for _ in range(_BLOCKS):
        head = file.read(4)
        if len(head) < 4:
            break
        size = int.from_bytes(head[1:], "big")
        if head[0] & 0x7F == COMMENTS:
            return read_comments(file.read(size))
        if head[0] & 0x80:
            break
        file.seek(size, 1)
    return {}


def _blocks(data: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """Yield (kind, body, is the last one) of every block of a FLAC that a library wrote."""
    at, last = 4, False
    while not last:
        kind, size = data[at] & 0x7F, int.from_bytes(data[at + 1 : at + 4], "big")
        last = bool(data[at] & 0x80)
        yield kind, data[at + 4 : at + 4 + size], last
        at += 4 + size


def _block(kind: int, body: bytes, last: bool) -> bytes:
    return bytes([kind | (0x80 if last else 0)]) + len(body).to_bytes(3, "big") + body
