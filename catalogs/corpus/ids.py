"""Identities: short hashes of what a thing is made from, so that the same input always has the same name.

Every id is the first 16 hex digits of a sha256 (64 bits: at 720 million segments the chance of any collision is 1.4 %,
and `fsck` would name it).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

_LENGTH = 16


def short_hash(*parts: str | int) -> str:
    """16 hex digits over the parts; each is prefixed with its length so that ("ab", "c") and ("a", "bc") differ."""
    state = hashlib.sha256()
    for part in parts:
        data = str(part).encode()
        state.update(f"{len(data)}:".encode())
        state.update(data)
    return state.hexdigest()[:_LENGTH]


def other_channel_id(source: str) -> str:
    """The id of a file's second channel, if each channel is a separate recording; the first keeps the file's id."""
    return short_hash("channel", source, 1)


def source_id(relative_path: str, content_sha256: str) -> str:
    """Id of one source file: its path within the sources and its content (two copies of a file are two sources)."""
    return short_hash("source", relative_path, content_sha256)


def unit_id(sources: Iterable[tuple[str, int, str]], fingerprint: str) -> str:
    """Id of a unit from (source id, size in bytes, content sha256) of its files, in any order, and the fingerprint.

    A changed config gives another fingerprint and with it new units: old and new segments never mix in one unit.
    """
    parts: list[str | int] = ["unit", fingerprint]
    for source in sorted(sources):
        parts.extend(source)
    return short_hash(*parts)


def segment_id(source: str, start_sample: int, end_sample: int, fingerprint: str) -> str:
    """Id of a segment: its source, its first and last + 1 sample at the source's own rate, and the fingerprint."""
    return short_hash("segment", source, start_sample, end_sample, fingerprint)
