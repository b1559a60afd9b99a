"""Folders of any file system that fsspec knows, and the members of zips: listed, with the transcripts beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath, PurePosixPath
from typing import Any

from pipeline.containers.members import Aside, Member, MemberHashes, one_line
from pipeline.containers.tars import list_tar
from pipeline.manifests import SourceError
from pipeline.places import bare, is_hidden, is_no_recording, is_other_archive, is_tar, is_zip
from pipeline.transcripts.beside import LARGEST_BYTES, Beside, may_be_transcript
from pipeline.transcripts.formats import TranscriptError

_PAGES = ("http", "https")
"""Protocols without folders: what fsspec lists there are the links of a web page."""


class _Objects:
    """The text files among the objects of a file system (see `beside.Shelf`)."""

    def __init__(self, system: Any, infos: Iterable[Mapping[str, Any]]) -> None:
        self._system = system
        self._folders: dict[PurePath, list[str]] = {}
        self._infos: dict[PurePath, Mapping[str, Any]] = {}
        for info in infos:
            path = PurePosixPath(info["name"])
            if may_be_transcript(path.name) and info.get("type") != "directory":
                self._folders.setdefault(path.parent, []).append(path.name)
                self._infos[path] = info

    def names(self, folder: PurePath) -> list[str]:
        return self._folders.get(folder, [])

    def read(self, path: PurePath) -> bytes:
        info = self._infos[path]
        if int(info.get("size") or 0) > LARGEST_BYTES:
            raise TranscriptError("it is larger than 64 MB")
        try:
            return bytes(self._system.cat_file(info["name"]))
        except Exception as error:
            raise OSError(one_line(error)) from None


def list_folder(
    url: str, title: str, language: str | None, aside: Aside, hashes: MemberHashes | None = None
) -> Iterator[Member]:
    """The recordings below a folder of a store, or in a zip (`zip://::file:///data/a.zip`), and in the tars and zips of the
    folder. Raises SourceError where it cannot be listed."""
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(url)
        infos = system.find(root, detail=True)
    except Exception as error:
        raise SourceError(f"{title}: cannot be listed ({one_line(error)})") from None
    head, chain, rest = url.partition("::")
    protocol = head.split("://")[0]
    beside = Beside(_Objects(system, infos.values()), lambda path: _within(path, root, title))
    for name in sorted(infos):
        called = _within(PurePosixPath(name), root, title)
        if is_hidden(called.removeprefix(f"{title}/")):
            continue
        archive = is_tar(name) or is_zip(name)
        if archive and not chain:
            yield from _archive(system, name, called, language, aside)
        elif is_no_recording(name):
            aside.leave(name)
            if archive or is_other_archive(name) or name.lower().endswith(".parquet"):
                aside.unopened.append(called)
        else:
            location = f"{protocol}://{name}{chain}{rest}" if chain else system.unstrip_protocol(name)
            member = _file(system, name, infos[name], location, called, hashes or MemberHashes())
            yield _with_text(member, beside, name, language, aside)


def list_url(url: str, language: str | None, aside: Aside) -> Iterator[Member]:
    """A file, a folder, a tar or a zip behind a URL. Raises SourceError where nothing is there or it cannot be opened."""
    import fsspec

    plain = url.split("::")[0].rstrip("/")
    try:
        system, path = fsspec.core.url_to_fs(url)
        folder = system.isdir(path)
        if not folder and not system.exists(path):
            raise SourceError(f"{url}: nothing is there")
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(f"{url}: cannot be opened ({one_line(error)})") from None
    title = PurePosixPath(path).name
    if folder:
        yield from list_folder(url, title, language, aside)
    elif is_tar(plain):
        with system.open(path, "rb") as file:
            yield from list_tar(file, url, title, language, aside)
    elif is_zip(plain):
        yield from list_folder(f"zip://::{url}", title, language, aside)
    else:
        yield _alone(system, path, url, title, language, aside, {})


def find_one(url: str, language: str | None, aside: Aside, folders: dict[str, Beside]) -> Member:
    """The one recording at a URL, called by its path in the store; a Member with a fault where there is none.

    `folders` remembers what lies in the folders that were looked into.
    """
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
        if not system.exists(path):
            return Member(url, bare(url), fault="nothing is there")
        if system.isdir(path):
            return Member(url, bare(url), fault="a folder, not a recording: give it as a source of its own")
    except Exception as error:
        return Member(url, bare(url), fault=f"cannot be opened ({one_line(error)})")
    return _alone(system, path, url, bare(url), language, aside, folders)


def _alone(
    system: Any,
    path: str,
    url: str,
    name: str,
    language: str | None,
    aside: Aside,
    folders: dict[str, Beside],
) -> Member:
    """One file, with the transcript beside it where its store has folders."""
    protocols = (system.protocol,) if isinstance(system.protocol, str) else system.protocol
    folder = str(PurePosixPath(path).parent)
    key = f"{protocols[0]}://{folder}"
    try:
        info = system.info(path)
        if key not in folders:
            infos = [] if set(protocols) & set(_PAGES) else system.ls(folder, detail=True)
            folders[key] = Beside(_Objects(system, infos), system.unstrip_protocol)
    except Exception as error:
        return Member(url, name, fault=f"cannot be read ({one_line(error)})")
    return _with_text(_file(system, path, info, url, name, MemberHashes()), folders[key], path, language, aside)


def _archive(system: Any, name: str, called: str, language: str | None, aside: Aside) -> Iterator[Member]:
    """The recordings of a tar or zip among the files of a folder; one that cannot be opened stops nothing."""
    url = system.unstrip_protocol(name)
    try:
        if is_zip(name):
            yield from list_folder(f"zip://::{url}", called, language, aside)
        else:
            with system.open(name, "rb") as file:
                yield from list_tar(file, url, called, language, aside)
    except (SourceError, OSError) as error:
        yield Member(url, called, fault=one_line(error))


def _file(system: Any, path: str, info: Mapping[str, Any], location: str, name: str, hashes: MemberHashes) -> Member:
    """The content's hash is the store's version tag where reading it would mean a download."""
    size = int(info.get("size") or 0)
    try:
        if system.protocol in ("zip", "tar") or getattr(system, "local_file", False):
            digest = hashes.of(location, lambda: system.open(path, "rb"))
        else:
            digest = hashlib.sha256(f"{location}\0{system.ukey(path)}".encode()).hexdigest()
    except Exception as error:
        return Member(location, name, fault=f"cannot be read ({one_line(error)})")
    return Member(location, name, size, digest)


def _with_text(member: Member, beside: Beside, path: str, language: str | None, aside: Aside) -> Member:
    transcript, notices = beside.find(PurePosixPath(path), language)
    aside.notices += notices
    return replace(member, text=transcript.text, spans=transcript.spans) if transcript else member


def _within(path: PurePath, root: str, title: str) -> str:
    """What a file below `root` is called: its path there, after the folder's own name."""
    return f"{title}/{path.relative_to(root).as_posix() if root else path.as_posix()}"
