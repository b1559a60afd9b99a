"""Ids: short hashes of what an object is made from, so that the same input always gets the same id.

Every id is the first 16 hex digits of a sha256 (64 bits). At 720 million segments the probability of any collision is 1.4 %, and
`fsck` would report it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

_LENGTH = 16


def short_hash(*parts: str | int) -> str:
    """Return 16 hex digits over the parts. Each is prefixed with its length, so that ("ab", "c") and ("a", "bc") differ."""
    state = hashlib.sha256()
    for part in parts:
        data = str(part).encode()
        state.update(f"{len(data)}:".encode())
        state.update(data)
    return state.hexdigest()[:_LENGTH]


def other_channel_id(source: str) -> str:
    """Return the id of a file's second channel, if each channel is a separate recording. The first has the file's id."""
    return short_hash("channel", source, 1)


def source_id(relative_path: str, content_sha256: str) -> str:
    """Return the id of a source file, from its path within the sources and its content. Two copies are two sources."""
    return short_hash("source", relative_path, content_sha256)


def unit_id(sources: Iterable[tuple[str, int, str]], fingerprint: str) -> str:
    """Return the id of a unit, from (source id, size in bytes, content sha256) of its files in any order, and the fingerprint.

    A changed config changes the fingerprint and so the unit ids: old and new segments never mix in one unit.
    """
    parts: list[str | int] = ["unit", fingerprint]
    for source in sorted(sources):
        parts.extend(source)
    return short_hash(*parts)


def segment_id(source: str, start_sample: int, end_sample: int, fingerprint: str) -> str:
    """Return the id of a segment, from its source, its first and last + 1 sample at the source's rate, and the fingerprint."""
    return short_hash("segment", source, start_sample, end_sample, fingerprint)
