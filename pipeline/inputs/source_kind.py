"""The interface of a kind of container: recognize an argument, list the recordings, and read them for copying."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.inputs.members import HashTable, MemberHashes, PackedRecording, Skipped
from pipeline.inputs.store_access import DEFAULT, Stores
from pipeline.records import Source

BLOCK = 4 << 20
"""Bytes per read."""


@dataclass(frozen=True)
class Listing:
    """The context of a listing: the language of recordings for which a container gives none, where to record what is
    skipped, the hashes that avoid reading unchanged content again, and the limits for requests to stores."""

    language: str | None = None
    aside: Skipped = field(default_factory=Skipped)
    hashes: HashTable | None = None
    stores: Stores = DEFAULT

    def hashes_of(self, container: Path) -> MemberHashes:
        """Return the known hashes of the members of a container on this machine."""
        return MemberHashes(self.hashes, container)


class SourceKind(ABC):
    """A kind of container. The location of a recording in it has the form `SCHEME://MEMBER::file://CONTAINER`."""

    scheme: str

    @abstractmethod
    def recognizes(self, argument: str) -> bool:
        """Return True if an argument of a run names a container of this kind."""

    @abstractmethod
    def list(self, argument: str, title: str, listing: Listing) -> Iterator[PackedRecording]:
        """Yield all recordings of a container in its order, named after its title. Raises SourceError if it cannot be
        opened at all."""

    def container_of(self, location: str) -> str | None:
        """Return what is opened to read a recording: its location without the member. None if it is not in a container of
        this kind."""
        inner, _, outer = location.partition("::")
        return f"{self.scheme}::{outer}" if outer and inner.startswith(f"{self.scheme}://") else None

    def file_name(self, location: str) -> str:
        """Return the name of a recording. Its ending becomes that of the copy."""
        return location.partition("::")[0]

    @abstractmethod
    def read(
        self, container: str, sources: Sequence[Source], stores: Stores
    ) -> Iterator[tuple[Source, Iterator[bytes]]]:
        """Yield recordings of one container with their content. Each content must be read before the next recording is
        requested.

        A recording that is not there any more is left out. Raises OSError if the container cannot be read.
        """


def blocks(file: Any, size: int | None = None) -> Iterator[bytes]:
    """Yield a file's content from its current position, or `size` bytes of it."""
    left = size
    while block := file.read(BLOCK if left is None else min(BLOCK, left)):
        yield block
        if left is not None:
            left -= len(block)


def member_name(location: str) -> str:
    """Return the name of a recording within its container, without `./` or `/` before it, which only some tools write."""
    return plain_name(location.partition("::")[0].partition("://")[2])


def plain_name(name: str) -> str:
    """Return a member's name without `./` or `/` before it."""
    return PurePosixPath(name).as_posix().lstrip("/")
