"""Ids: short hashes of what an object is made from, so that the same input always gets the same id.

Every id is the first 16 hex digits of a sha256 (64 bits). At 720 million segments the probability of any collision is 1.4 %, and
`fsck` would report it.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

import numpy as np

_LENGTH = 16
_PARTS = 64
_HELD = 1 << 20


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


def id_values(ids: Sequence[str]) -> np.ndarray:
    """Return uint64 `[N]`: the value of each id, or a hash of one that is not 16 hex digits."""
    if not len(ids):
        return np.zeros(0, dtype=np.uint64)
    try:
        joined = bytes.fromhex("".join(ids)) if set(map(len, ids)) == {_LENGTH} else b""
    except ValueError:
        joined = b""
    if len(joined) != 8 * len(ids):
        joined = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids)
    return np.frombuffer(joined, dtype=">u8").astype(np.uint64)


class IdSet:
    """The values of ids, as many as there are: 8 bytes each, in unnamed temporary files beyond a million.

    Two ids may have one value: a caller must look at the ids of the few values that it finds.
    """

    def __init__(self) -> None:
        self._held: list[np.ndarray] = []
        self._count = 0
        self._files: list[IO[bytes]] = []

    def add(self, values: np.ndarray) -> None:
        """Add uint64 `[N]`."""
        self._held.append(values)
        self._count += len(values)
        if self._count >= _HELD:
            self._write()

    def _write(self) -> None:
        if not self._files:
            self._files = [tempfile.TemporaryFile(buffering=0) for _ in range(_PARTS)]  # noqa: SIM115 - closed with the set
        values = np.sort(np.concatenate(self._held))
        edges = np.searchsorted(values, np.arange(1, _PARTS, dtype=np.uint64) << np.uint64(58))
        for file, part in zip(self._files, np.split(values, edges), strict=True):
            file.write(part.tobytes())
        self._held, self._count = [], 0

    def _parts(self) -> Iterator[np.ndarray]:
        """Yield all values in sorted parts, each value in one part only."""
        if not self._files:
            yield np.sort(np.concatenate([np.zeros(0, dtype=np.uint64), *self._held]))
            return
        self._held.append(np.zeros(0, dtype=np.uint64))
        self._write()
        for file in self._files:
            file.seek(0)
            yield np.sort(np.frombuffer(file.read(), dtype=np.uint64))

    def repeated(self) -> set[int]:
        """Return the values that were added more than once."""
        found: set[int] = set()
        for part in self._parts():
            found.update(part[1:][part[1:] == part[:-1]].tolist())
        return found

    def known(self, values: np.ndarray) -> np.ndarray:
        """Return bool `[N]`: True for values that were added."""
        found = np.zeros(len(values), dtype=bool)
        for part in self._parts():
            found |= np.isin(values, part)
        return found
