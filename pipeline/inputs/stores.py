"""Folders of any file system that fsspec supports, and the members of zips: listed, with the transcripts beside them."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath, PurePosixPath
from typing import Any
from urllib.parse import unquote

from catalogs.urls import is_location, public
from pipeline.inputs.manifests import SourceError
from pipeline.inputs.members import MemberHashes, PackedRecording, Skipped, climbs, faulty, redacted_line, too_large
from pipeline.inputs.source_kind import Listing, SourceKind, blocks
from pipeline.inputs.store_access import Stores, check_url, is_remote, store_error
from pipeline.inputs.tars import list_tar
from pipeline.inputs.transcripts.beside import LARGEST_BYTES, TranscriptFinder, may_be_transcript
from pipeline.inputs.transcripts.formats import TranscriptError
from pipeline.records import Source
from pipeline.runtime.paths import (
    bare,
    is_hidden,
    is_no_recording,
    is_other_archive,
    is_page,
    is_tar,
    is_zip,
    without_query,
)
from pipeline.stage import StoreError


class _Objects:
    """The text files among the objects of a file system (see `beside.TextStore`)."""

    def __init__(self, stores: Stores, system: Any, infos: Iterable[Mapping[str, Any]]) -> None:
        self._stores, self._system = stores, system
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
            return bytes(self._stores.ask(lambda: self._system.cat_file(info["name"]), is_remote(self._system)))
        except Exception as error:
            raise OSError(redacted_line(error)) from None


class Store(SourceKind):
    """A file, a folder, a tar or a zip behind a URL of any file system that fsspec supports."""

    scheme = ""

    def recognizes(self, argument: str) -> bool:
        return is_location(argument)

    def list(self, argument: str, title: str, listing: Listing) -> Iterator[PackedRecording]:
        check_url(argument)
        yield from list_url(argument, listing)

    def container_of(self, location: str) -> str | None:
        return location

    def file_name(self, location: str) -> str:
        return without_query(location.partition("::")[0])

    def read(
        self, container: str, sources: Sequence[Source], stores: Stores
    ) -> Iterator[tuple[Source, Iterator[bytes]]]:
        with stores.open(*stores.locate(container), ahead=False) as file:
            yield sources[0], blocks(file)


def list_folder(
    url: str, title: str, listing: Listing, hashes: MemberHashes | None = None
) -> Iterator[PackedRecording]:
    """Yield the recordings below a folder of a store, or in a zip (`zip://::file:///data/a.zip`), and in the tars and zips
    of the folder. Raises SourceError if it cannot be listed, StoreError if its store fails."""
    stores, aside = listing.stores, listing.aside
    try:
        system, root = stores.locate(url)
        infos = links(stores, system, root) if is_page(root) else _found(stores, system, root)
    except Exception as error:
        if fault := store_error(error):
            raise fault from None
        if isinstance(error, SourceError):
            raise SourceError(f"{title}: {error}") from None
        raise SourceError(f"{title}: cannot be listed ({redacted_line(error)})") from None
    head, chain, rest = url.partition("::")
    protocol = head.split("://")[0]
    beside = TranscriptFinder(_Objects(stores, system, infos.values()), lambda path: _within(path, root, title))
    recordings: list[tuple[str, str]] = []
    for name in sorted(infos):
        called = _within(PurePosixPath(name), root, title)
        if is_hidden(called.removeprefix(f"{title}/")):
            continue
        archive = is_tar(name) or is_zip(name)
        if archive and not chain:
            yield from _archive(listing, system, name, called)
        elif is_no_recording(name):
            aside.leave(name)
            if archive or is_other_archive(name) or name.lower().endswith(".parquet"):
                aside.unopened.append(called)
        else:
            recordings.append((name, called))
    # A page of links does not state the size of the files that it links to.
    looked = stores.look_at(recordings if is_page(root) else (), lambda item: stores.info(system, item[0]))
    for name, called in recordings:
        location = f"{protocol}://{name}{chain}{rest}" if chain else system.unstrip_protocol(name)
        info = next(looked) if is_page(root) else infos[name]
        if isinstance(info, Exception):
            yield faulty(location, called, info)
        else:
            member = _file(stores, system, name, info, location, called, hashes or MemberHashes(), aside)
            yield _with_text(member, beside, name, listing)


def _found(stores: Stores, system: Any, root: str) -> dict[str, Mapping[str, Any]]:
    return dict(stores.ask(lambda: system.find(root, detail=True), is_remote(system)))


def links(stores: Stores, system: Any, page: str) -> dict[str, Mapping[str, Any]]:
    """Return what a page of links and the pages below it link to, each file once. Links to other places are not followed."""
    top = page.rstrip("/") + "/"
    waiting, seen = [top], {top}
    found: dict[str, Mapping[str, Any]] = {}
    while waiting:
        here = waiting.pop()
        for info in stores.ask(lambda here=here: system.ls(here, detail=True)):  # type: ignore[misc]
            name = str(info["name"])
            # The links by which a server sorts its page have a query and do not name a file.
            if not name.startswith(top) or "?" in name or "#" in name or "/../" in name or name in seen:
                continue
            seen.add(name)
            if name.endswith("/"):
                waiting.append(name)
            else:
                found[name] = info
    return found


def list_url(url: str, listing: Listing) -> Iterator[PackedRecording]:
    """Yield the recordings of a file, a folder, a tar or a zip behind a URL. Raises SourceError if nothing is there or it
    cannot be opened."""
    stores = listing.stores
    plain = without_query(url.split("::")[0]).rstrip("/")
    shown = public(url)
    try:
        looked = look(stores, url)
        if isinstance(looked, FileNotFoundError):
            raise SourceError(f"{shown}: nothing is there")
        title = PurePosixPath(bare(url) if is_page(url) else looked.path).name
        if looked.folder:
            yield from list_folder(url, title, listing)
        elif is_tar(plain):
            with stores.open(looked.system, looked.path) as file:
                yield from list_tar(file, url, title, listing)
        elif is_zip(plain):
            yield from list_folder(f"zip://::{url}", title, listing)
        else:
            yield _alone(looked, url, title, listing, {})
    except SourceError:
        raise
    except FileNotFoundError:
        raise SourceError(f"{shown}: nothing is there") from None
    except StoreError as error:
        raise SourceError(f"{shown}: {redacted_line(error)}; nothing was started, run the same command again") from None
    except Exception as error:
        raise SourceError(f"{shown}: cannot be opened ({redacted_line(error)})") from None


@dataclass(frozen=True)
class Looked:
    """What a store answers about a URL."""

    system: Any
    path: str
    folder: bool
    info: Mapping[str, Any]


def look(stores: Stores, url: str) -> Looked:
    """Ask a store what is behind a URL. Raises FileNotFoundError if nothing is there."""
    system, path = stores.locate(url)
    if is_page(path):
        info = stores.info(system, path)
        folder = path.endswith("/") or (info.get("mimetype") == "text/html" and not is_no_recording(path))
        return Looked(system, path, folder, info)
    remote = is_remote(system)
    folder = stores.ask(lambda: system.isdir(path), remote)
    if not folder and not stores.ask(lambda: system.exists(path), remote):
        raise FileNotFoundError("nothing is there")
    return Looked(system, path, folder, {} if folder else stores.info(system, path))


def take_one(
    url: str, looked: Looked | Exception, listing: Listing, folders: dict[str, TranscriptFinder]
) -> PackedRecording:
    """Return the one recording at a URL, named by its path in the store; with a fault if it is missing.

    `looked` is what `look` returned or raised; `folders` caches the transcripts of the folders that were listed.
    """
    if isinstance(looked, FileNotFoundError):
        return PackedRecording(url, bare(url), fault="nothing is there")
    if isinstance(looked, Exception):
        return faulty(url, bare(url), looked, "cannot be opened")
    if looked.folder:
        what = "a web page" if is_page(url) else "a folder"
        return PackedRecording(url, bare(url), fault=f"{what}, not a recording: give it as a separate source")
    return _alone(looked, url, bare(url), listing, folders)


def _alone(
    looked: Looked, url: str, name: str, listing: Listing, folders: dict[str, TranscriptFinder]
) -> PackedRecording:
    """Return one file, with the transcript beside it if its store has folders."""
    stores = listing.stores
    system, path = looked.system, looked.path
    protocols = (system.protocol,) if isinstance(system.protocol, str) else system.protocol
    folder = str(PurePosixPath(path).parent)
    key = f"{protocols[0]}://{folder}"
    try:
        if key not in folders:
            infos = [] if is_page(path) else stores.ask(lambda: system.ls(folder, detail=True), is_remote(system))
            folders[key] = TranscriptFinder(_Objects(stores, system, infos), system.unstrip_protocol)
    except Exception as error:
        return faulty(url, name, error)
    member = _file(stores, system, path, looked.info, url, name, MemberHashes(), listing.aside)
    return _with_text(member, folders[key], path, listing)


def _archive(listing: Listing, system: Any, name: str, called: str) -> Iterator[PackedRecording]:
    """Yield the recordings of a tar or zip among the files of a folder. If one cannot be opened, the listing continues."""
    url = system.unstrip_protocol(name)
    try:
        if is_zip(name):
            yield from list_folder(f"zip://::{url}", called, listing)
        else:
            with listing.stores.open(system, name) as file:
                yield from list_tar(file, url, called, listing)
    except (SourceError, OSError) as error:
        yield faulty(url, called, error, "")


def _file(
    stores: Stores,
    system: Any,
    path: str,
    info: Mapping[str, Any],
    location: str,
    name: str,
    hashes: MemberHashes,
    aside: Skipped,
) -> PackedRecording:
    """Return one file. Its hash is the store's version tag if reading the content would mean a download."""
    size = int(info.get("size") or 0)
    if size > aside.largest_bytes:
        return PackedRecording(location, name, size, fault=too_large(size, aside))
    if "external_attr" in info:
        if climbs(str(info.get("filename") or path)):
            return PackedRecording(location, name, size, fault="its name leads out of the zip; rename it in the zip")
        if stat.S_ISLNK(int(info["external_attr"]) >> 16):
            return PackedRecording(location, name, size, fault="a link within the zip; pack the files themselves")
    try:
        if system.protocol in ("zip", "tar") or getattr(system, "local_file", False):
            digest = hashes.of(location, lambda: system.open(path, "rb"))
        else:
            version = _version(info) if is_page(path) else stores.ask(lambda: system.ukey(path), is_remote(system))
            digest = hashlib.sha256(f"{public(location)}\0{version}".encode()).hexdigest()
    except Exception as error:
        return faulty(location, name, error)
    return PackedRecording(location, name, size, digest)


def _version(info: Mapping[str, Any]) -> str:
    """Return what changes with a file's content in a web server's answer."""
    tag = next((info[key] for key in ("Digest", "Content-MD5", "ETag", "Last-Modified") if info.get(key)), "")
    return f"{info.get('size')}\0{tag}"


def _with_text(member: PackedRecording, beside: TranscriptFinder, path: str, listing: Listing) -> PackedRecording:
    transcript, notices = beside.find(PurePosixPath(path), listing.language)
    listing.aside.notices += notices
    return replace(member, text=transcript.text, spans=transcript.spans) if transcript else member


def _within(path: PurePath, root: str, title: str) -> str:
    """Return the name of a file below `root`: its path there, after the folder's own name."""
    inner = path.relative_to(root).as_posix() if root else path.as_posix()
    return f"{title}/{unquote(inner) if is_page(root) else inner}"
