"""WebDataset tars: members whose names agree up to the first dot belong together."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from pipeline.inputs.manifests import SourceError
from pipeline.inputs.members import (
    MemberHashes,
    PackedRecording,
    Skipped,
    climbs,
    known_facts,
    redacted_line,
    too_large,
)
from pipeline.inputs.source_kind import Listing, SourceKind, blocks, member_name, plain_name
from pipeline.inputs.store_access import Stores
from pipeline.inputs.transcripts.beside import LARGEST_BYTES, TranscriptFinder, may_be_transcript
from pipeline.inputs.transcripts.formats import TranscriptError
from pipeline.records import Source
from pipeline.runtime.paths import is_hidden, is_no_recording, is_other_archive, is_tar, is_zip, printable
from pipeline.stage import StoreError

_PROPER_ENDS = ("EOFHeaderError", "EmptyHeaderError")
"""Exceptions of the standard library at a tar's end mark, and if a tar ends without one."""
LARGEST_SUM = 8 * LARGEST_BYTES
"""Bytes of all texts of one tar, which are held in memory while it is listed."""
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")


class _Header(tarfile.TarInfo):
    """A member's header. `tarfile` takes a damaged header for the end of the tar; here it is an error."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            if type(error).__name__ in _PROPER_ENDS:
                raise
            raise tarfile.ReadError(str(error)) from None


class _Texts:
    """The text members of a tar, held while it is listed: a tar can be read only in its own order (see `beside.TextStore`)."""

    def __init__(self) -> None:
        self._folders: dict[PurePath, list[str]] = {}
        self._content: dict[PurePath, bytes | None] = {}
        self._left = LARGEST_SUM

    def has_room(self, size: int) -> bool:
        """Return True if a text of `size` bytes may be held: neither it nor the sum of all texts is too large."""
        return size <= min(LARGEST_BYTES, self._left)

    def put(self, path: PurePosixPath, content: bytes | None) -> None:
        """Keep a member; `content` is None if it does not fit."""
        if path not in self._content:
            self._folders.setdefault(path.parent, []).append(path.name)
        self._left -= len(content or b"") - len(self._content.get(path) or b"")
        self._content[path] = content

    def names(self, folder: PurePath) -> list[str]:
        return self._folders.get(folder, [])

    def read(self, path: PurePath) -> bytes:
        content = self._content[path]
        if content is None:
            raise TranscriptError("it is larger than 64 MB, or the texts of this tar are larger than 512 MB together")
        return content


class Tar(SourceKind):
    """A tar on this machine, compressed or not."""

    scheme = "tar"

    def recognizes(self, argument: str) -> bool:
        return is_tar(Path(argument).name) and Path(argument).is_file()

    def list(self, argument: str, title: str, listing: Listing) -> Iterator[PackedRecording]:
        path = Path(argument)
        with path.open("rb") as file:
            yield from list_tar(file, f"file://{path}", title, listing, listing.hashes_of(path))

    def read(
        self, container: str, sources: Sequence[Source], stores: Stores
    ) -> Iterator[tuple[Source, Iterator[bytes]]]:
        placed = all(source.extent for source in sources)
        with stores.open(*stores.locate(container.removeprefix("tar::")), ahead=not placed) as file:
            placed = placed and file.seekable()
            yield from _read_places(file, sources) if placed else _read_through(file, sources)


def _read_places(file: Any, sources: Sequence[Source]) -> Iterator[tuple[Source, Iterator[bytes]]]:
    for source in sorted(sources, key=lambda source: source.extent or (0, 0)):
        offset, size = source.extent or (0, 0)
        file.seek(offset)
        yield source, blocks(file, size)


def _read_through(file: Any, sources: Sequence[Source]) -> Iterator[tuple[Source, Iterator[bytes]]]:
    """Read from the beginning to the last requested member."""
    waiting = {member_name(source.path): source for source in sources}
    with tarfile.open(fileobj=file, mode="r|*") as tar:
        for item in tar:
            source = waiting.pop(plain_name(item.name), None)
            if source is not None:
                yield source, blocks(tar.extractfile(item) or io.BytesIO())
            if not waiting:
                return


def list_tar(
    stream: Any, url: str, title: str, listing: Listing, hashes: MemberHashes | None = None
) -> Iterator[PackedRecording]:
    """Yield the recordings of a tar, compressed or not, in its order; `url` is its location, `title` its name.

    `.json` members give the session, language and rights of the recordings they belong to. The text comes from the same
    kinds of transcript as beside files. Raises SourceError if nothing in it can be read; everything after a damaged place
    is one recording with a fault.
    """
    audio: list[PackedRecording] = []
    facts: dict[str, dict[str, Any]] = {}
    texts = _Texts()
    fault = None
    aside = listing.aside
    plain = _is_plain(stream)
    hashes = hashes or MemberHashes()
    try:
        with tarfile.open(fileobj=stream, mode="r:" if plain else "r|*", tarinfo=_Header) as tar:
            for item in tar:
                path = PurePosixPath(item.name)
                if item.size > aside.largest_bytes and not plain:
                    # What follows can be reached only by unpacking it.
                    audio.append(
                        PackedRecording(url, f"{title}/{item.name}", item.size, fault=too_large(item.size, aside))
                    )
                    aside.notices.append(f"{title}: what comes after {printable(item.name)} was not looked at")
                    break
                if item.isdir() or is_hidden(item.name):
                    continue
                if is_no_recording(path.name):
                    _keep_text(tar, item, texts, facts, f"{title}/{item.name}", aside.notices)
                    if is_tar(path.name) or is_zip(path.name) or is_other_archive(path.name):
                        aside.unopened.append(printable(f"{title}/{item.name}"))
                    aside.leave(path.name)
                    continue
                audio.append(_member(tar, item, url, title, plain, hashes, aside))
    except StoreError:
        raise
    except (tarfile.TarError, EOFError, OSError) as error:
        if not audio:
            raise SourceError(f"{title}: not a tar that can be read ({redacted_line(error)})") from None
        fault = f"the tar is damaged after this many recordings: {len(audio)} ({redacted_line(error)})"
    beside = TranscriptFinder(texts, lambda path: printable(f"{title}/{path}"), by_key=True)
    for member in audio:
        path = PurePosixPath(member.name.removeprefix(f"{title}/"))
        known = facts.get(_key(path), {})
        transcript, notices = beside.find(path, known.get("language") or listing.language)
        aside.notices += notices
        if transcript:
            known = known | {"text": transcript.text}
        yield replace(member, spans=transcript.spans if transcript else (), **known)
    if fault is not None:
        yield PackedRecording(url, title, fault=fault)


def _is_plain(stream: Any) -> bool:
    """Return True if a tar is not compressed, so that a member can be read again from its offset."""
    if not stream.seekable():
        return False
    head = stream.read(6)
    stream.seek(0)
    return not head.startswith(_COMPRESSED)


def _member(
    tar: tarfile.TarFile,
    item: tarfile.TarInfo,
    url: str,
    title: str,
    plain: bool,
    hashes: MemberHashes,
    aside: Skipped,
) -> PackedRecording:
    name = f"{title}/{item.name}"
    content = tar.extractfile(item) if item.isfile() else None
    if content is None:
        # The target of a link may come later in the tar, or not be in it.
        return PackedRecording(
            f"{url}#{item.name}", name, fault="a link within the tar; pack the files themselves (tar -h)"
        )
    if climbs(item.name):
        return PackedRecording(
            f"{url}#{item.name}", name, item.size, fault="its name leads out of the tar; rename it in the tar"
        )
    if item.size > aside.largest_bytes:
        return PackedRecording(f"{url}#{item.name}", name, item.size, fault=too_large(item.size, aside))
    # fsspec cuts chained URLs at `::`; such a name could not be opened again.
    if "::" in item.name:
        return PackedRecording(f"{url}#{item.name}", name, item.size, fault="its name holds `::`; rename it in the tar")
    location = f"tar://{item.name}::{url}"
    digest = hashes.of(location, lambda: content)
    extent = (item.offset_data, item.size) if plain and not item.issparse() else None
    return PackedRecording(location, name, item.size, digest, extent=extent)


def _keep_text(
    tar: tarfile.TarFile,
    item: tarfile.TarInfo,
    texts: _Texts,
    facts: dict[str, dict[str, Any]],
    name: str,
    notices: list[str],
) -> None:
    """Hold a member that may be a transcript, and the facts that a `.json` gives for its key."""
    path = PurePosixPath(item.name)
    content = tar.extractfile(item) if item.isfile() and may_be_transcript(path.name) else None
    if content is None:
        return
    data = content.read() if texts.has_room(item.size) else None
    texts.put(path, data)
    if path.suffix.lower() != ".json" or data is None:
        return
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(values, Mapping):
        told = known_facts(values, "sidecar", printable(name), notices)
        told.pop("text", None)
        facts.setdefault(_key(path), {}).update(told)


def _key(path: PurePosixPath) -> str:
    return str(path.parent / path.name.split(".", 1)[0])
