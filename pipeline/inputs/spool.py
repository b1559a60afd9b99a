"""Copies of recordings that are not separate files, in the folder of the session that needs them."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from catalogs.files import is_full_disk
from pipeline.inputs.members import LARGEST_MEMBER, redacted_line
from pipeline.inputs.store_access import DEFAULT, Stores, store_error
from pipeline.inputs.tables import read_rows
from pipeline.records import Source
from pipeline.runtime.paths import without_query
from pipeline.stage import StoreError

_BLOCK = 4 << 20


class Spool:
    """Fetches a session's recordings, the first time one of a container is asked for all of them in one pass: a compressed tar
    or a Parquet file cannot be entered in the middle, and a zip's table of contents would be read for every member.

    `working` is called with the source id before each copy. `compare`: whether a member of a tar must have the hash it was listed
    with. `stores`: how long and how often stores are asked.
    """

    def __init__(
        self,
        folder: str | Path,
        sources: Iterable[Source],
        working: Callable[[str], None] = lambda source_id: None,
        compare: bool = True,
        stores: Stores = DEFAULT,
    ) -> None:
        self._folder = Path(folder)
        self._compare = compare
        self._stores = stores
        self._working = working
        self._waiting: dict[str, dict[str, Source]] = {}
        self._faults: dict[str, OSError] = {}
        for source in sources:
            self._waiting.setdefault(_container(source.path), {})[source.path] = source

    def fetch(self, source: Source) -> Path:
        """The copy of a recording; one that is there already is used again. Raises OSError with one line where it cannot be had,
        StoreError where its store failed, and the system's own where the disk is full."""
        target = self._target(source)
        if not target.is_file() and source.path not in self._faults:
            container = _container(source.path)
            wanted = self._waiting.pop(container, {})
            wanted.pop(source.path, None)
            wanted[source.path] = source
            self._copy(container, [one for one in wanted.values() if not self._target(one).is_file()])
        if target.is_file():
            return target
        raise self._faults[source.path]

    def _target(self, source: Source) -> Path:
        inner = without_query(source.path.split("::")[0])
        name = urlsplit(source.path).path if source.path.startswith("rows://") else inner
        return self._folder / (hashlib.sha256(source.path.encode()).hexdigest()[:16] + PurePosixPath(name).suffix)

    def _copy(self, container: str, sources: Sequence[Source]) -> None:
        """Copy recordings of one container, the last of them the one that is asked for; what went wrong with which is noted.

        If the pass itself breaks, only the requested recording has had its try. Each of the others gets a separate pass.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        why, asked_for = _cannot(OSError("it is not there any more")), sources[-1:]
        try:
            self._working(asked_for[0].source_id)
            for source, blocks in _read(container, sources, self._stores):
                self._working(source.source_id)
                try:
                    self._write(source, blocks)
                except Exception as error:
                    if is_full_disk(error) or isinstance(error, ImportError):
                        raise
                    self._faults[source.path] = _cannot(error)
        except Exception as error:
            if is_full_disk(error) or isinstance(error, ImportError):
                raise
            why, sources = _cannot(error), asked_for
        for source in sources:
            if not self._target(source).is_file():
                self._faults.setdefault(source.path, why)

    def _write(self, source: Source, blocks: Iterator[bytes]) -> None:
        target = self._target(source)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        digest = hashlib.sha256()
        try:
            with partial.open("wb") as file:
                left = source.bytes or LARGEST_MEMBER
                for block in blocks:
                    left -= len(block)
                    if left < 0:
                        raise OSError(_grown(source))
                    file.write(block)
                    digest.update(block)
            # If the tar was rewritten, the place in it would hold something else.
            if self._compare and source.extent and digest.hexdigest() != source.content_sha256:
                raise OSError("it has changed since it was listed; run the same command again")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


def _cannot(error: Exception) -> OSError:
    fault = store_error(error)
    kind = StoreError if fault or isinstance(error, ImportError) else OSError
    return kind(f"cannot be fetched ({redacted_line(fault or error)})")


def fetch(source: Source, folder: str | Path, stores: Stores = DEFAULT) -> Path:
    """Copy one recording into `folder` and return the copy. Raises OSError with one line where it cannot be had.

    Its hash may be anything: a forecast, which hears a few excerpts, does not read everything for it.
    """
    return Spool(folder, [source], compare=False, stores=stores).fetch(source)


def _grown(source: Source) -> str:
    if source.bytes:
        return "it is larger than when it was listed; run the same command again"
    return f"its size is not known, and it is larger than {LARGEST_MEMBER / 1e9:g} GB: copy it to this machine yourself"


def _container(location: str) -> str:
    """What is opened to read a recording: the archive with the way in, the table, or the object itself."""
    if location.startswith("rows://"):
        return location.partition("#")[0]
    inner, _, outer = location.partition("::")
    protocol = inner.partition("://")[0]
    return f"{protocol}::{outer}" if outer and protocol in ("tar", "zip") else location


def _read(container: str, sources: Sequence[Source], stores: Stores) -> Iterator[tuple[Source, Iterator[bytes]]]:
    """Recordings of one container with their content, each to be read before the next is asked for."""
    if container.startswith("rows://"):
        by_location = {source.path: source for source in sources}
        for location, data in read_rows(container, by_location):
            yield by_location[location], iter([data])
    elif container.startswith("tar::"):
        placed = all(source.extent for source in sources)
        with stores.open(*stores.locate(container.removeprefix("tar::")), ahead=not placed) as file:
            placed = placed and file.seekable()
            yield from _read_places(file, sources) if placed else _read_tar(file, sources)
    elif container.startswith("zip::"):
        place = stores.locate(container.removeprefix("zip::"))
        with stores.open(*place) as file, zipfile.ZipFile(file) as archive:
            there = {_inner(name): name for name in archive.namelist()}
            for source in sources:
                if name := there.get(_inner(_member(source))):
                    yield source, _zip_blocks(archive, name)
    else:
        with stores.open(*stores.locate(container), ahead=False) as file:
            yield sources[0], _blocks(file)


def _read_places(file: Any, sources: Sequence[Source]) -> Iterator[tuple[Source, Iterator[bytes]]]:
    for source in sorted(sources, key=lambda source: source.extent or (0, 0)):
        offset, size = source.extent or (0, 0)
        file.seek(offset)
        yield source, _blocks(file, size)


def _read_tar(file: Any, sources: Sequence[Source]) -> Iterator[tuple[Source, Iterator[bytes]]]:
    """From the beginning to the last member that is wanted."""
    waiting = {_inner(_member(source)): source for source in sources}
    with tarfile.open(fileobj=file, mode="r|*") as tar:
        for item in tar:
            source = waiting.pop(_inner(item.name), None)
            if source is not None:
                yield source, _blocks(tar.extractfile(item) or io.BytesIO())
            if not waiting:
                return


def _zip_blocks(archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    with archive.open(name) as file:
        yield from _blocks(file)


def _blocks(file: Any, size: int | None = None) -> Iterator[bytes]:
    """A file's content from here on, or `size` bytes of it."""
    left = size
    while block := file.read(_BLOCK if left is None else min(_BLOCK, left)):
        yield block
        if left is not None:
            left -= len(block)


def _member(source: Source) -> str:
    return source.path.partition("::")[0].partition("://")[2]


def _inner(name: str) -> str:
    """A member's name as different tools write it: without `./` before it."""
    return PurePosixPath(name).as_posix().lstrip("/")
