"""Which arguments are containers, and what is in them."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from pathlib import Path, PurePosixPath

from pipeline.containers.members import Aside, HashKey, Member, MemberHashes, one_line
from pipeline.containers.stores import find_one, list_folder, list_url
from pipeline.containers.tables import audio_column, is_dataset, list_dataset, list_parquet
from pipeline.containers.tars import list_tar
from pipeline.places import bare, is_location, is_tar, is_zip, local_path
from pipeline.transcripts.beside import Beside


def is_container(argument: str) -> bool:
    """Whether an argument names recordings that are no files: a URL, a tar, a zip, a `datasets` folder, a Parquet file
    with an audio column."""
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
    aside: Aside | None = None,
    title: str | None = None,
    hashes: MutableMapping[HashKey, str] | None = None,
) -> Iterator[Member]:
    """All recordings of a container, in its order. Raises SourceError where it cannot be opened at all.

    `language` is that of recordings of which the container says nothing, `title` what a container on this machine is called
    (its name), `aside` takes what is passed over. `hashes` saves reading tars and zips that have not changed again.
    """
    aside = aside if aside is not None else Aside()
    if is_location(argument):
        yield from list_url(argument, language, aside)
        return
    path = Path(argument).expanduser().absolute()
    title = title or path.name
    if path.is_dir():
        yield from list_dataset(path, title, aside)
    elif path.suffix.lower() == ".parquet":
        yield from list_parquet(path, title, aside)
    elif is_zip(path.name):
        yield from list_folder(f"zip://::file://{path}", title, language, aside, MemberHashes(hashes, path))
    else:
        with path.open("rb") as file:
            yield from list_tar(file, f"file://{path}", title, language, aside, MemberHashes(hashes, path))


class Located:
    """Finds the recordings that lists name by a URL; an archive that holds some of them is read once for all."""

    def __init__(self, language: str | None, aside: Aside, hashes: MutableMapping[HashKey, str] | None = None) -> None:
        self._language, self._aside, self._hashes = language, aside, hashes
        self._archives: dict[str, dict[str, Member] | str] = {}
        """Members by name, or why there are none."""
        self._folders: dict[str, Beside] = {}

    def find(self, url: str) -> Member:
        """The recording; a Member with a fault where there is none. Never raises for what the store answers."""
        inner, _, outer = url.partition("::")
        protocol = inner.partition("://")[0]
        if not outer or protocol not in ("tar", "zip"):
            return find_one(url, self._language, self._aside, self._folders)
        name = bare(url)
        key = f"{protocol}::{outer}"
        if key not in self._archives:
            try:
                self._archives[key] = self._members(protocol, outer)
            except Exception as error:
                self._archives[key] = one_line(error)
        members = self._archives[key]
        if isinstance(members, str):
            return Member(url, name, fault=members)
        return members.get(name) or Member(url, name, fault="the archive has no such member")

    def _members(self, protocol: str, outer: str) -> dict[str, Member]:
        """{name: member} of an archive."""
        import fsspec

        # What is passed over belongs to no list: its archive is no source of its own.
        title, aside = bare(outer), Aside(notices=self._aside.notices)
        file_here = local_path(outer)
        hashes = MemberHashes() if is_location(file_here) else MemberHashes(self._hashes, Path(file_here))
        if protocol == "zip":
            members = list(list_folder(f"zip://::{outer}", title, self._language, aside, hashes))
        else:
            with fsspec.open(outer, "rb") as file:
                members = list(list_tar(file, outer, title, self._language, aside, hashes))
        return {PurePosixPath(member.name).as_posix(): member for member in members}
