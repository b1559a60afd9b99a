"""Zips: listed like a folder of a store, read through their table of contents."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.inputs.members import PackedRecording
from pipeline.inputs.source_kind import Listing, SourceKind, blocks, member_name, plain_name
from pipeline.inputs.store_access import Stores
from pipeline.inputs.stores import list_folder
from pipeline.records import Source
from pipeline.runtime.paths import is_zip


class Zip(SourceKind):
    """A zip on this machine."""

    scheme = "zip"

    def recognizes(self, argument: str) -> bool:
        return is_zip(Path(argument).name) and Path(argument).is_file()

    def list(self, argument: str, title: str, listing: Listing) -> Iterator[PackedRecording]:
        path = Path(argument)
        yield from list_folder(f"zip://::file://{path}", title, listing, listing.hashes_of(path))

    def read(
        self, container: str, sources: Sequence[Source], stores: Stores
    ) -> Iterator[tuple[Source, Iterator[bytes]]]:
        place = stores.locate(container.removeprefix("zip::"))
        with stores.open(*place) as file, zipfile.ZipFile(file) as archive:
            there = {plain_name(name): name for name in archive.namelist()}
            for source in sources:
                if name := there.get(member_name(source.path)):
                    yield source, _content(archive, name)


def _content(archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    with archive.open(name) as file:
        yield from blocks(file)
