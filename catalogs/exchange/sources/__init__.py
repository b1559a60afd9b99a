"""The sources of an import: one file and one entry of this table for each kind."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Protocol

from catalogs.exchange.request import ExchangeError
from catalogs.exchange.sources.row import BadRow, Roots, Row


class Reader(Protocol):
    """A kind of source."""

    def files(self, path: Path) -> list[Path] | None:
        """Return the files to read of a file or folder, in order; None if it is of another kind."""

    def rows(self, file: Path, roots: Roots) -> Iterator[Row | BadRow]:
        """Yield the rows of one file, with audio that is read when it is asked for."""


KINDS = {
    "webdataset": "catalogs.exchange.sources.tars",
    "lhotse": "catalogs.exchange.sources.lhotse_cuts",
    "datasets": "catalogs.exchange.sources.tables",
    "manifest": "catalogs.exchange.sources.manifests",
}
"""Name -> module with `files` and `rows`. The first that recognizes a source reads it."""


def reader_of(path: Path) -> tuple[Reader, list[Path]]:
    """Return the reader of a source and the files that it reads. Raises ExchangeError for a source of no kind."""
    if not path.exists():
        raise ExchangeError(f"{path} does not exist")
    for module in KINDS.values():
        reader: Reader = import_module(module)
        files = reader.files(path)
        if files:
            return reader, files
    raise ExchangeError(
        f"{path} is none of: {', '.join(KINDS)}. Give a .jsonl or .csv manifest, lhotse cuts, a .tar, or a folder of Parquet "
        "files; recordings without a manifest are for voxmill prepare"
    )
