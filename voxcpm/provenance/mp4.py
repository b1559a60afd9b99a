"""M4A: tags in `moov.udta.meta`, as music players read them; the label is a field of its name there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO

from voxcpm.provenance.statement import COMMENT, ENCODER

_NAMED = {COMMENT: b"\xa9cmt", ENCODER: b"\xa9too"}
_BOXES = 1000
"""Most boxes that are looked at in one file."""
_LONGEST = 1 << 48
"""Longest box that is skipped, in bytes."""
_MOST = 1 << 24
"""Longest `moov` that is read, in bytes."""


def tagged_mp4(data: bytes, tags: Mapping[str, str]) -> bytes:
    """Return a whole M4A with these tags. `moov` must come after the samples, whose places then stay the same."""
    boxes = list(_children(data))
    if not boxes or boxes[-1][0] != b"moov":
        raise ValueError("the M4A does not end with its box moov")
    moov = b"".join(_box(kind, body) for kind, body in _children(boxes[-1][1]) if kind != b"udta")
    return b"".join(_box(kind, body) for kind, body in boxes[:-1]) + _box(b"moov", moov + _user_data(tags))


def read_mp4(file: IO[bytes]) -> dict[str, str]:
    """Return the tags of an M4A; the file is at its start."""
    for _ in range(_BOXES):
        head = file.read(8)
        size, kind, read = int.from_bytes(head[:4], "big"), head[4:8], 8
        if size == 1:
            size, read = int.from_bytes(file.read(8), "big"), 16
        if kind == b"moov":
            return _read_moov(file.read(_MOST if size == 0 else min(size - read, _MOST))) if size != 1 else {}
        # A position that is larger than any file has no place in a seek.
        if len(head) < 8 or size < read or size > _LONGEST:
            break
        file.seek(size - read, 1)
    return {}


def _user_data(tags: Mapping[str, str]) -> bytes:
    handler = _box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    items = b""
    for name, text in tags.items():
        # Type 1 is UTF-8; no country and no language.
        data = _box(b"data", b"\0\0\0\1" + bytes(4) + text.encode())
        if name in _NAMED:
            items += _box(_NAMED[name], data)
        else:
            mean = _box(b"mean", bytes(4) + b"com.apple.iTunes")
            items += _box(b"----", mean + _box(b"name", bytes(4) + name.encode()) + data)
    return _box(b"udta", _box(b"meta", bytes(4) + handler + _box(b"ilst", items)))


def _read_moov(moov: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    names = {box: tag for tag, box in _NAMED.items()}
    for meta in _inside(moov, b"udta", b"meta"):
        names |= _keys(next(_inside(meta[4:], b"keys"), b""))
        for kind, item in _inside_all(meta[4:], b"ilst"):
            parts = dict(_children(item))
            name = parts.get(b"name", b"")[4:].decode("utf-8", "replace") if kind == b"----" else names.get(kind)
            if name and b"data" in parts:
                found.setdefault(name, parts[b"data"][8:].decode("utf-8", "replace"))
    return found


def _keys(body: bytes) -> dict[bytes, str]:
    """Return the names in a box `keys`, which FFmpeg writes for other tags, by the kind of their items: 1, 2, 3 ..."""
    names = (key[4:].decode("utf-8", "replace") for key in (body for _, body in _children(body[8:])))
    return {number.to_bytes(4, "big"): name for number, name in enumerate(names, 1)}


def _inside(data: bytes, *path: bytes) -> Iterator[bytes]:
    """Yield the bodies of the boxes at a path."""
    for kind, body in _children(data):
        if kind == path[0]:
            yield from _inside(body, *path[1:]) if len(path) > 1 else (body,)


def _inside_all(data: bytes, kind: bytes) -> Iterator[tuple[bytes, bytes]]:
    for body in _inside(data, kind):
        yield from _children(body)


def _children(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, body) of the boxes in `data`, until one is not whole."""
    at = 0
    while at + 8 <= len(data):
        size, kind, read = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if size == 1:
            size, read = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if size < read or at + size > len(data):
            return
        yield kind, data[at + read : at + size]
        at += size


def _box(kind: bytes, body: bytes) -> bytes:
    return (8 + len(body)).to_bytes(4, "big") + kind + body
