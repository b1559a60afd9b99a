"""Find the manifest of a file, without the C2PA library: its bytes are in one chunk, tag or box, or in a file beside it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from voxcpm.provenance.id3 import HEADER, frames_of, tag_bytes

EMBEDDED = {"wav": "audio/wav", "flac": "audio/flac", "mp3": "audio/mpeg", "m4a": "audio/mp4"}
"""Formats that hold a manifest -> their media types."""

_MOST = 1 << 24
"""Longest manifest that is read, in bytes."""
_PARTS = 10_000
"""Most chunks or boxes of one file that are looked at."""
_SIDECAR = ".c2pa"
_ENDINGS = "wav flac mp3 m4a ogg oga opus aac aif aiff au caf wma wv amr ac3 mka mp4 mov mkv webm avi"
_RECORDED = tuple(f".{name}" for ending in _ENDINGS.split() for name in (ending, ending.upper()))
"""Suffixes of the names of files with sound."""
_MIME = (b"application/x-c2pa-manifest-store", b"application/c2pa")
_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
"""Identity of the box of an M4A that holds a manifest."""


def format_of(file: IO[bytes]) -> str | None:
    """Return `wav`, `flac`, `mp3` or `m4a` by the content of a file; None for others. A tag may come first."""
    file.seek(0)
    tag = tag_bytes(file.read(HEADER))
    file.seek(tag)
    head = file.read(12)
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"fLaC":
        return "flac"
    if head[4:8] == b"ftyp":
        return "m4a"
    # The sync word of MPEG audio, which raw AAC has too, with layer 0.
    mpeg = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06
    return "mp3" if mpeg else None


def sidecar_of(path: str | Path) -> Path:
    """Return the path of the manifest that is written beside a file: its name and `.c2pa`."""
    return Path(f"{path}{_SIDECAR}")


def _beside(path: Path) -> Path:
    """Return the path of the manifest beside a file: `sidecar_of`, or other programs' name without the suffix of the file.

    That name is not taken if it fits several audio files.
    """
    ours, others = sidecar_of(path), path.with_suffix(_SIDECAR)
    if ours.exists() or others == path or not others.exists():
        return ours
    alike = (path.with_suffix(suffix) for suffix in _RECORDED)
    return ours if any(one != path and one.exists() and not one.samefile(path) for one in alike) else others


def find_manifest(path: str | Path) -> tuple[bytes, bool] | None:
    """Return (bytes of a file's manifest, whether they are in the file); None if it has none. Raises OSError.

    A file with an embedded manifest may have another one beside it, which is then not read.
    """
    with Path(path).open("rb") as file:
        if (found := next(_embedded(file), None)) is not None:
            return found, True
    beside = _beside(Path(path))
    if not beside.is_file():
        return None
    with beside.open("rb") as file:
        return file.read(_MOST), False


def _embedded(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the manifests in a file."""
    form = format_of(file)
    file.seek(0)
    if form in ("mp3", "flac"):
        size = tag_bytes(file.read(HEADER))
        file.seek(0)
        yield from _in_tag(file.read(min(size, _MOST)))
    elif form == "wav":
        file.seek(12)
        yield from _in_chunks(file)
    elif form == "m4a":
        yield from _in_boxes(file)


def _in_tag(tag: bytes) -> Iterator[bytes]:
    for kind, body in frames_of(tag):
        if kind == b"GEOB" and (mime := next((m for m in _MIME if body[1:].startswith(m + b"\0")), None)):
            rest = body[2 + len(mime) :]
            # The name of the file and a description come first; both end with a zero, or two in UTF-16.
            for _ in range(2):
                rest = _after_text(rest, 2 if body[0] in (1, 2) else 1)
            yield rest


def _after_text(data: bytes, width: int) -> bytes:
    stop = next((i for i in range(0, len(data), width) if data[i : i + width] == b"\0" * width), len(data))
    return data[stop + width :]


def _in_chunks(file: IO[bytes]) -> Iterator[bytes]:
    for _ in range(_PARTS):
        head = file.read(8)
        if len(head) < 8:
            return
        name, size = struct.unpack("<4sI", head)
        after = file.tell() + size + size % 2
        if name == b"C2PA":
            yield file.read(min(size, _MOST))
        file.seek(after)


def _in_boxes(file: IO[bytes]) -> Iterator[bytes]:
    at, end = 0, file.seek(0, 2)
    for _ in range(_PARTS):
        if at >= end:
            return
        file.seek(at)
        head = file.read(16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        start = at + 8
        if size == 1:
            size, start = int.from_bytes(head[8:16], "big"), at + 16
        size = size or end - at  # The last box may leave its size out.
        if len(head) < 8 or size < start - at:
            return
        if kind == b"uuid":
            file.seek(start)
            yield from _in_uuid(file.read(min(size - (start - at), _MOST)))
        at += size


def _in_uuid(body: bytes) -> Iterator[bytes]:
    """Yield the manifest of a box: after its identity come version, purpose, and the place of a box that is not used here."""
    if body[:16] != _BOX:
        return
    purpose, _, rest = body[20:].partition(b"\0")
    if purpose == b"manifest":
        yield rest[8:]
