"""The statement in whole files: put into the bytes of one that is finished, and read from any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

from voxcpm.provenance.flac import read_flac, tagged_flac
from voxcpm.provenance.id3 import HEADER, id3_tag, read_id3, tag_bytes
from voxcpm.provenance.mp4 import read_mp4
from voxcpm.provenance.ogg import read_ogg, tagged_ogg
from voxcpm.provenance.riff import read_riff
from voxcpm.provenance.statement import Statement

_LONGEST_TAG = 1 << 20
"""Longest ID3 tag that is read, in bytes. Covers of albums make them long, but not with our statement behind the cover."""


def marked(data: bytes, statement: Statement) -> bytes:
    """Return the bytes of a whole FLAC, Ogg or MP3 file with the statement. The encoded audio stays the same."""
    if data[:4] == b"fLaC":
        return tagged_flac(data, statement.tags())
    if data[:4] == b"OggS":
        return tagged_ogg(data, statement.tags())
    return id3_tag(statement.tags()) + data


def read_marks(path: str | Path) -> Statement | None:
    """Return the statement of a WAV, FLAC, Ogg, MP3, AAC or M4A file; None if it has none. Raises OSError.

    The content says the format, not the name. A file without a statement may be synthetic all the same.
    """
    with Path(path).open("rb") as file:
        return next((stated for tags in _tags(file) if (stated := Statement.from_tags(tags))), None)


def _tags(file: IO[bytes]) -> Iterator[dict[str, str]]:
    """Yield the tags of each place in a file that may hold some."""
    start = 0
    if size := tag_bytes(file.read(HEADER)):
        file.seek(0)
        yield read_id3(file.read(min(size, _LONGEST_TAG)))
        # Some programs put this tag before other formats too.
        start = size
    file.seek(start)
    head = file.read(12)
    if head[:4] == b"fLaC":
        file.seek(start + 4)
        yield read_flac(file)
    elif head[:4] == b"OggS":
        file.seek(start)
        yield read_ogg(file)
    elif head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE":
        yield from read_riff(file)
    elif head[4:8] == b"ftyp":
        file.seek(start)
        yield read_mp4(file)
