"""ID3v2 tags: the tags of MP3, of raw AAC, and of a chunk of WAV. Written as version 2.3, read as 2.3 and 2.4."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from voxcpm.provenance.statement import COMMENT, ENCODER

HEADER = 10
"""Bytes of the header of a tag."""

_TEXT = {0: "latin-1", 1: "utf-16", 2: "utf-16-be", 3: "utf-8"}
"""Encodings of a text by their number in a frame."""


def id3_tag(tags: Mapping[str, str]) -> bytes:
    """Return an ID3v2.3 tag. COMMENT is a COMM frame, ENCODER is TSSE, others are TXXX with their name. Texts are ASCII."""
    frames = b""
    for name, text in tags.items():
        value = text.encode("ascii")
        if name == COMMENT:
            frames += _frame(b"COMM", b"\0eng\0" + value)
        elif name == ENCODER:
            frames += _frame(b"TSSE", b"\0" + value)
        else:
            frames += _frame(b"TXXX", b"\0" + name.encode("ascii") + b"\0" + value)
    return b"ID3\3\0\0" + _syncsafe(len(frames)) + frames


def tag_bytes(head: bytes) -> int:
    """Return the length of the tag, header included, that starts with these ten bytes; 0 if they start none."""
    if len(head) < HEADER or head[:3] != b"ID3" or any(byte & 0x80 for byte in head[6:10]):
        return 0
    return HEADER + _number(head[6:10], 7) + (HEADER if head[5] & 0x10 else 0)


def read_id3(tag: bytes) -> dict[str, str]:
    """Return the comments and the TXXX texts of a tag by name; without those that are compressed or damaged."""
    found = dict[str, str]()
    for kind, body in frames_of(tag):
        if kind in (b"COMM", b"TXXX"):
            name, text = _named(kind, body)
            found.setdefault(name, text)
    return found


def frames_of(tag: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, body) of the frames of a tag; without those that are empty or compressed."""
    size = tag_bytes(tag)
    # Unsynchronized tags need another reading; we write none, and nobody does for ASCII.
    if not size or tag[3] not in (3, 4) or tag[5] & 0x80:
        return
    bits, at, end = (7 if tag[3] == 4 else 8), HEADER, min(size, len(tag))
    if tag[5] & 0x40:
        extended = _number(tag[HEADER : HEADER + 4], bits)
        at += extended + (4 if tag[3] == 3 else 0)
    while at + 10 <= end and tag[at : at + 4].strip(b"\0"):
        kind, length, flags = tag[at : at + 4], _number(tag[at + 4 : at + 8], bits), tag[at + 9]
        body = tag[at + 10 : min(at + 10 + length, end)]
        at += 10 + length
        if body and not flags:
            yield kind, body


def _named(kind: bytes, body: bytes) -> tuple[str, str]:
    """Return (name, text) of a frame. A comment has a language before its description."""
    encoding = _TEXT.get(body[0], "latin-1")
    width = 2 if body[0] in (1, 2) else 1
    rest, stop = body[4 if kind == b"COMM" else 1 :], b"\0" * width
    cut = next((i for i in range(0, len(rest), width) if rest[i : i + width] == stop), len(rest))
    name = rest[:cut].decode(encoding, "replace")
    text = rest[cut + width :].decode(encoding, "replace").rstrip("\0")
    return (name or COMMENT) if kind == b"COMM" else name, text


def _frame(kind: bytes, body: bytes) -> bytes:
    return kind + len(body).to_bytes(4, "big") + b"\0\0" + body


def _syncsafe(number: int) -> bytes:
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))


def _number(data: bytes, bits: int) -> int:
    """Return the number in big-endian bytes that hold `bits` bits each."""
    number = 0
    for byte in data:
        number = number << bits | byte
    return number
