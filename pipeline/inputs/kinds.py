"""Which arguments are containers, and what is in them."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from pipeline.inputs.members import HashKey, MemberHashes, PackedRecording, Skipped, faulty
from pipeline.inputs.store_access import DEFAULT, Stores, check_url
from pipeline.inputs.stores import list_folder, list_url, look, take_one
from pipeline.inputs.tables import audio_column, is_dataset, list_dataset, list_parquet
from pipeline.inputs.tars import list_tar
from pipeline.inputs.transcripts.beside import TranscriptFinder
from pipeline.runtime.paths import bare, is_location, is_tar, is_zip, local_path


def is_container(argument: str) -> bool:
    """Return True if an argument names recordings that are not single files: a URL, a tar, a zip, a `datasets` folder, a
    Parquet file with an audio column."""
    if is_location(argument):
        return True
    path = Path(argument).expanduser()
    if path.is_dir():
        return is_dataset(path)
    if path.suffix.lower() == ".parquet" and path.is_file():
        return audio_column(path) is not None
    return (is_tar(path.name) or is_zip(path.name)) and path.is_file()


def list_members(
    argument: str,
    language: str | None = None,
    aside: Skipped | None = None,
    title: str | None = None,
    hashes: MutableMapping[HashKey, str] | None = None,
    stores: Stores = DEFAULT,
) -> Iterator[PackedRecording]:
    """All recordings of a container, in its order. Raises SourceError where it cannot be opened at all.

    `language` is that of recordings of which the container says nothing, `title` what a container on this machine is called
    (its name), `aside` takes what is passed over. `hashes` saves reading tars and zips that have not changed again.
    """
    aside = aside if aside is not None else Skipped()
    if is_location(argument):
        check_url(argument)
        yield from list_url(argument, language, aside, stores)
        return
    path = Path(argument).expanduser().absolute()
    title = title or path.name
    if path.is_dir():
        yield from list_dataset(path, title, aside)
    elif path.suffix.lower() == ".parquet":
        yield from list_parquet(path, title, aside)
    elif is_zip(path.name):
        yield from list_folder(f"zip://::file://{path}", title, language, aside, stores, MemberHashes(hashes, path))
    else:
        with path.open("rb") as file:
            yield from list_tar(file, f"file://{path}", title, language, aside, MemberHashes(hashes, path))


class UrlResolver:
    """Finds the recordings that lists name by a URL; an archive that holds some of them is read once for all."""

    def __init__(
        self,
        language: str | None,
        aside: Skipped,
        hashes: MutableMapping[HashKey, str] | None = None,
        stores: Stores = DEFAULT,
    ) -> None:
        self._language, self._aside, self._hashes, self._stores = language, aside, hashes, stores
        self._archives: dict[str, dict[str, PackedRecording] | PackedRecording] = {}
        """Members by name, or what is wrong with the archive."""
        self._folders: dict[str, TranscriptFinder] = {}

    def find(self, urls: Sequence[str]) -> Iterator[PackedRecording]:
        """The recordings, in order; a Member with a fault where there is none. Raises SourceError where no answer can be had
        from a store at all, and for a URL that cannot be opened here."""
        for url in urls:
            check_url(url)
        alone = [url for url in urls if not _in_archive(url)]
        looked = self._stores.look_at(alone, lambda url: look(self._stores, url))
        for url in urls:
            if _in_archive(url):
                yield self._in_archive(url)
            else:
                yield take_one(url, next(looked), self._stores, self._language, self._aside, self._folders)

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
        """{name: member} of an archive."""
        # What is passed over is not listed: its archive is not a separate source.
        title, aside = bare(outer), Skipped(notices=self._aside.notices, largest_bytes=self._aside.largest_bytes)
        file_here = local_path(outer)
        hashes = MemberHashes() if is_location(file_here) else MemberHashes(self._hashes, Path(file_here))
        if protocol == "zip":
            members = list(list_folder(f"zip://::{outer}", title, self._language, aside, self._stores, hashes))
        else:
            with self._stores.open(*self._stores.locate(outer)) as file:
                members = list(list_tar(file, outer, title, self._language, aside, hashes))
        return {PurePosixPath(member.name).as_posix(): member for member in members}


def _in_archive(url: str) -> bool:
    inner, _, outer = url.partition("::")
    return bool(outer) and inner.partition("://")[0] in ("tar", "zip")
