"""Copies of recordings that are not separate files, in the folder of the session that needs them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from catalogs.files import is_full_disk
from pipeline.inputs.kinds import kind_of
from pipeline.inputs.members import LARGEST_MEMBER, redacted_line
from pipeline.inputs.source_kind import SourceKind
from pipeline.inputs.store_access import DEFAULT, Stores, store_error
from pipeline.records import Source
from pipeline.stage import StoreError


class Spool:
    """Fetches a session's recordings. When the first one of a container is requested, all of them are copied in one pass: a
    compressed tar or a Parquet file has no random access, and a zip's table of contents would be read for every member.

    `working` is called with the source id before each copy. `compare`: whether a member of a tar must have the hash it was
    listed with. `stores`: time-out and tries of requests to stores.
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
            self._waiting.setdefault(kind_of(source.path)[1], {})[source.path] = source

    def fetch(self, source: Source) -> Path:
        """Return the copy of a recording; an existing copy is used again. Raises OSError with one line if it is not
        available, StoreError if its store failed, and the system's error if the disk is full."""
        target = self._target(source)
        if not target.is_file() and source.path not in self._faults:
            kind, container = kind_of(source.path)
            wanted = self._waiting.pop(container, {})
            wanted.pop(source.path, None)
            wanted[source.path] = source
            self._copy(kind, container, [one for one in wanted.values() if not self._target(one).is_file()])
        if target.is_file():
            return target
        raise self._faults[source.path]

    def _target(self, source: Source) -> Path:
        kind, _ = kind_of(source.path)
        name = kind.file_name(source.path)
        return self._folder / (hashlib.sha256(source.path.encode()).hexdigest()[:16] + PurePosixPath(name).suffix)

    def _copy(self, kind: SourceKind, container: str, sources: Sequence[Source]) -> None:
        """Copy recordings of one container, the last of them the requested one, and record the error of each that fails.

        If the pass itself fails, only the requested recording has had its try. Each of the others gets a separate pass.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        why, asked_for = _cannot(OSError("it is not there any more")), sources[-1:]
        try:
            self._working(asked_for[0].source_id)
            for source, blocks in kind.read(container, sources, self._stores):
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
            # If the tar was rewritten, other content would be at that offset.
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
    """Copy one recording into `folder` and return the copy. Raises OSError with one line if it is not available.

    Its hash is not compared: a forecast uses a few excerpts and does not read everything for a hash.
    """
    return Spool(folder, [source], compare=False, stores=stores).fetch(source)


def _grown(source: Source) -> str:
    if source.bytes:
        return "it is larger than when it was listed; run the same command again"
    return f"its size is not known, and it is larger than {LARGEST_MEMBER / 1e9:g} GB: copy it to this machine yourself"
