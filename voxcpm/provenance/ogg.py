"""Ogg pages, for Opus and Vorbis: written, read, and the comments of a whole file replaced."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from voxcpm.provenance.vorbis import read_comments, vendor_of, vorbis_comments

FIRST, LAST = 2, 4
"""Flags of the first and of the last page of a stream."""
_CONTINUED = 1
_HEADERS = {b"OpusHead": (2, b"OpusTags"), b"\x01vorbis": (3, b"\x03vorbis")}
"""Start of a stream's first packet -> (packets of its header, start of the packet of comments)."""
_MOST = 1 << 20
"""Most bytes of a header that are read."""
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class Page:
    """A page. `segments`: the lengths of its pieces; a piece of 255 bytes is continued by the next one."""

    flags: int
    granule: int
    serial: int
    number: int
    segments: bytes
    body: bytes

    def to_bytes(self) -> bytes:
        """Return the page with its checksum."""
        fields = (b"OggS", 0, self.flags, self.granule, self.serial, self.number, 0, len(self.segments))
        page = struct.pack("<4sBBqIIIB", *fields) + self.segments + self.body
        return page[:22] + struct.pack("<I", _checksum(page)) + page[26:]


def page_of(packets: Sequence[bytes], flags: int, granule: int, serial: int, number: int) -> bytes:
    """Return one page that holds these packets, whole. Raises ValueError if they do not fit."""
    segments = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    if len(segments) > 255:
        raise ValueError("packets do not fit on a page of Ogg")
    return Page(flags, granule, serial, number, segments, b"".join(packets)).to_bytes()


def tagged_ogg(data: bytes, tags: Mapping[str, str]) -> bytes:
    """Return a whole Ogg Opus or Vorbis file with these comments. Its packets of audio are not touched."""
    packets: list[bytes] = []
    parts: list[bytes] = []
    at = 0
    for page in _pages(data):
        at += 27 + len(page.segments) + len(page.body)
        _split(page, packets, parts)
        count, start = _HEADERS[next(head for head in _HEADERS if packets[0].startswith(head))]
        if len(packets) == count and not parts:
            break
    vendor = vendor_of(packets[1][len(start) :])
    # Vorbis ends its comments with a bit that is 1.
    packets[1] = start + vorbis_comments(tags, vendor) + (b"\x01" if count == 3 else b"")
    out = [page_of(packets[:1], FIRST, 0, page.serial, 0)]
    out += [page_of([packet], 0, 0, page.serial, number) for number, packet in enumerate(packets[1:], 1)]
    for number, later in enumerate(_pages(data[at:]), count):
        out.append(Page(later.flags, later.granule, later.serial, number, later.segments, later.body).to_bytes())
    return b"".join(out)


def read_ogg(file: IO[bytes]) -> dict[str, str]:
    """Return the comments of the first stream of an Ogg file; the file is at its start."""
    packets: list[bytes] = []
    parts: list[bytes] = []
    for page in _pages(file.read(_MOST)):
        _split(page, packets, parts)
        if len(packets) > 1:
            found = next((start for head, (_, start) in _HEADERS.items() if packets[0].startswith(head)), None)
            return read_comments(packets[1][len(found) :]) if found and packets[1].startswith(found) else {}
    return {}


def _pages(data: bytes) -> Iterator[Page]:
    """Yield the whole pages at the start of `data`."""
    at = 0
    while at + 27 <= len(data) and data[at : at + 4] == b"OggS":
        _, _, flags, granule, serial, number, _, count = struct.unpack_from("<4sBBqIIIB", data, at)
        segments = data[at + 27 : at + 27 + count]
        begin = at + 27 + count
        at = begin + sum(segments)
        if len(segments) < count or at > len(data):
            return
        yield Page(flags, granule, serial, number, segments, data[begin:at])


def _split(page: Page, packets: list[bytes], parts: list[bytes]) -> None:
    """Add the packets that end on a page to `packets`; what is continued stays in `parts`."""
    at = 0
    for length in page.segments:
        parts.append(page.body[at : at + length])
        at += length
        if length < 255:
            packets.append(b"".join(parts))
            parts.clear()


def _checksum(page: bytes) -> int:
    """Return Ogg's CRC of a page. It is that of zlib with the bits of every byte, and of the result, in reversed order."""
    crc = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(crc.to_bytes(4, "little").translate(_REVERSED), "big")
