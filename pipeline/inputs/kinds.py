"""The kinds of containers: which arguments name one, what it holds, and the recordings that lists name by a URL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from catalogs.urls import is_location
from pipeline.inputs.members import MemberHashes, PackedRecording, Skipped, faulty
from pipeline.inputs.source_kind import Listing, SourceKind
from pipeline.inputs.store_access import check_url
from pipeline.inputs.stores import Store, list_folder, look, take_one
from pipeline.inputs.tables import DatasetFolder, ParquetTable
from pipeline.inputs.tars import Tar, list_tar
from pipeline.inputs.transcripts.beside import TranscriptFinder
from pipeline.inputs.zips import Zip
from pipeline.runtime.paths import bare, is_tar, is_zip, local_path

KINDS: tuple[SourceKind, ...] = (DatasetFolder(), ParquetTable(), Zip(), Tar(), Store())
"""The first kind that recognizes an argument or a recording's location handles it. `Store` handles every other URL."""


def is_container(argument: str) -> bool:
    """Return True if an argument names recordings that are not single files: a URL, a tar, a zip, a `datasets` folder, a
    Parquet file with an audio column."""
    return _recognized(argument) is not None


def may_be_container(path: str) -> bool:
    """Return False for a file on this machine that is none by its name, without a look at the disk."""
    return path.lower().endswith(".parquet") or is_tar(path) or is_zip(path)


def list_members(argument: str, listing: Listing, title: str | None = None) -> Iterator[PackedRecording]:
    """Yield all recordings of a container, in its order. Raises SourceError if it cannot be opened at all.

    `title` is the name given to a container on this machine (default: its file name).
    """
    kind = _recognized(argument)
    assert kind is not None
    place = argument if is_location(argument) else str(Path(argument).expanduser().absolute())
    yield from kind.list(place, title or Path(place).name, listing)


def kind_of(location: str) -> tuple[SourceKind, str]:
    """Return (kind, what is opened) for a recording that is not a file."""
    return next((kind, found) for kind in KINDS if (found := kind.container_of(location)) is not None)


def _recognized(argument: str) -> SourceKind | None:
    place = argument if is_location(argument) else str(Path(argument).expanduser())
    return next((kind for kind in KINDS if kind.recognizes(place)), None)


class UrlResolver:
    """Finds the recordings that lists name by a URL. An archive that holds several of them is read once."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._archives: dict[str, dict[str, PackedRecording] | PackedRecording] = {}
        """Members by name, or the fault of the archive."""
        self._folders: dict[str, TranscriptFinder] = {}

    def find(self, urls: Sequence[str]) -> Iterator[PackedRecording]:
        """Yield the recordings in order, one with a fault for each that is missing. Raises SourceError if a store does not
        answer at all, and for a URL that cannot be opened here."""
        for url in urls:
            check_url(url)
        alone = [url for url in urls if not _in_archive(url)]
        stores = self._listing.stores
        looked = stores.look_at(alone, lambda url: look(stores, url))
        for url in urls:
            if _in_archive(url):
                yield self._in_archive(url)
            else:
                yield take_one(url, next(looked), self._listing, self._folders)

    def _in_archive(self, url: str) -> PackedRecording:
        inner, _, outer = url.partition("::")
        protocol, name = inner.partition("://")[0], bare(url)
        key = f"{protocol}::{outer}"
        if key not in self._archives:
            try:
                self._archives[key] = self._members(protocol, outer)
            except Exception as error:
                self._archives[key] = faulty(outer, bare(outer), error, "")
        members = self._archives[key]
        if isinstance(members, PackedRecording):
            return replace(members, location=url, name=name)
        return members.get(name) or PackedRecording(url, name, fault="the archive has no such member")

    def _members(self, protocol: str, outer: str) -> dict[str, PackedRecording]:
        """Return {name: member} of an archive."""
        # Skipped files are not reported, because the archive is not a source by itself.
        given = self._listing.aside
        listing = replace(self._listing, aside=Skipped(notices=given.notices, largest_bytes=given.largest_bytes))
        title, file_here = bare(outer), local_path(outer)
        hashes = MemberHashes() if is_location(file_here) else listing.hashes_of(Path(file_here))
        if protocol == "zip":
            members = list(list_folder(f"zip://::{outer}", title, listing, hashes))
        else:
            with listing.stores.open(*listing.stores.locate(outer)) as file:
                members = list(list_tar(file, outer, title, listing, hashes))
        return {PurePosixPath(member.name).as_posix(): member for member in members}


def _in_archive(url: str) -> bool:
    inner, _, outer = url.partition("::")
    return bool(outer) and inner.partition("://")[0] in ("tar", "zip")
