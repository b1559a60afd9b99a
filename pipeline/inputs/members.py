"""The result of listing a container: its recordings, their metadata, and what was skipped."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from catalogs.files import one_line
from catalogs.urls import redacted
from catalogs.vocabulary.rights import NO_RIGHTS, Rights, RightsError, rights_of
from pipeline.inputs.manifests import COLUMNS
from pipeline.records import TimedText
from pipeline.stage import StoreError

#: Key of a content hash: path or location, size in bytes and time of last change in ns of the file.
HashKey = tuple[str, int, int]


class HashTable(Protocol):
    """Content hashes by the key of a file: `hashes.KeptHashes`, or a dict."""

    def __contains__(self, key: object, /) -> bool: ...

    def __getitem__(self, key: HashKey, /) -> str: ...

    def __setitem__(self, key: HashKey, sha256: str, /) -> None: ...


LARGEST_MEMBER = 8_000_000_000
"""Default of `sources.largest_gb`, in bytes. A day of 48 kHz mono takes as much."""


@dataclass(frozen=True)
class PackedRecording:
    """One recording of a container: its location, its name, its content, and what the container states about it.

    `fault` is set instead of a hash if the recording (or the rest of the container) cannot be read.
    """

    location: str
    name: str
    bytes: int = 0
    sha256: str = ""
    session: str | None = None
    language: str | None = None
    text: str | None = None
    rights: Rights = NO_RIGHTS
    spans: tuple[TimedText, ...] = ()
    extent: tuple[int, int] | None = None
    """(offset, size) in bytes of its content in an uncompressed tar."""
    fault: str | None = None
    unreachable: bool = False
    """With a fault: the store is at fault, and the recording may be available later."""


@dataclass
class Skipped:
    """What a listing skips, so that nothing is left out silently."""

    left: Counter[str] = field(default_factory=Counter)
    """Number of files that are plainly not recordings (some are read as transcripts), by ending."""
    unopened: list[str] = field(default_factory=list)
    """Archives that are not opened: they are of another kind, or within another archive."""
    notices: list[str] = field(default_factory=list)
    """Messages to show, e.g. that a transcript beside a recording cannot be read."""
    largest_bytes: int = LARGEST_MEMBER
    """Bytes that one recording of a container may unpack to. A larger one is a fault and is not unpacked."""

    def leave(self, name: str) -> None:
        """Count a file that is not a recording."""
        self.left[PurePosixPath(name).suffix.lower()] += 1


class MemberHashes:
    """Content hashes of the members of one container. Members that an earlier run has read are not read again if the
    container's size and date are unchanged. Without known hashes or a file on this machine, every member is read."""

    def __init__(self, known: HashTable | None = None, container: Path | None = None) -> None:
        state = container.stat() if known is not None and container is not None else None
        self._known: HashTable = known if known is not None and state else {}
        self._state = (state.st_size, state.st_mtime_ns) if state else (0, 0)

    def of(self, location: str, opened: Callable[[], Any]) -> str:
        """Return the sha256 of a member's content; `opened` opens it for reading."""
        key = (location, *self._state)
        if key not in self._known:
            with opened() as stream:
                self._known[key] = hashlib.file_digest(stream, "sha256").hexdigest()
        return self._known[key]


def climbs(name: str) -> bool:
    """Return True if a path in a container is absolute or leads out of it."""
    return name.startswith(("/", "~")) or ".." in PurePosixPath(name.replace("\\", "/")).parts


def too_large(size: int, aside: Skipped) -> str:
    """Return the fault of a recording that would unpack to more bytes than allowed."""
    return (
        f"it unpacks to {size / 1e9:.1f} GB, more than sources.largest_gb={aside.largest_bytes / 1e9:g} allows;"
        " raise that, or unpack it yourself"
    )


def known_facts(row: Mapping[str, Any], said_by: str, name: str, notices: list[str]) -> dict[str, Any]:
    """Return session, language, text and rights of a row, under any of the names that tools use.

    said_by: who states them (`license_source`). Rights that cannot be understood are left out, with a line about `name` in
    `notices`.
    """
    found: dict[str, Any] = {}
    for column, names in COLUMNS.items():
        if column == "path":
            continue
        value = next((row[name] for name in names if isinstance(row.get(name), str) and row[name].strip()), None)
        if value is not None:
            found[column] = value.strip()
    try:
        if (rights := rights_of(row, said_by)) != NO_RIGHTS:
            found["rights"] = rights
    except RightsError as error:
        notices.append(f"{name}: its rights were left out: {error}")
    return found


def redacted_line(error: BaseException) -> str:
    """Return the message of an error in one line without passwords; its type if it has no message."""
    return redacted(one_line(error))


def faulty(location: str, name: str, error: Exception, does: str = "cannot be read") -> PackedRecording:
    """Return a recording (or container) with the error that prevents reading it as its fault."""
    words = f"{does} ({redacted_line(error)})" if does else redacted_line(error)
    return PackedRecording(location, name, fault=words, unreachable=isinstance(error, StoreError))
