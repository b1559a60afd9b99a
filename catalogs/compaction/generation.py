"""A generation of compacted files on the disk: its manifest, and which one is the present one."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogs.corpus.commit import CorpusError, is_inside
from catalogs.corpus.locks import own_scratch
from catalogs.corpus.repair import COMPACT
from catalogs.files import file_sha256

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = "manifest.json"
_VERSION = 2
_KEPT_S = 24 * 3600.0
"""Age at which a generation that was replaced is removed: a program that opened the catalog before still reads it."""


@dataclass(frozen=True)
class CompactFile:
    """A file of a generation. path: within the generation. rows: number of rows. sha256: in hex."""

    path: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Block:
    """Rows of some units, or of some annotation files of one pass."""

    name: str
    group: str
    """Empty for units, otherwise the folder of the pass (`Entry.group`)."""
    members: int
    """Number of units or files."""
    files: Mapping[str, CompactFile]
    """By kind; kinds without rows have no file. `units` or `members` lists the members."""
    loose: bool = False
    """Whether rows may be of segments that do not exist."""
    judged: str = ""
    """Key of the thresholds by which `judged_kept` and `judged_reasons` of the index were decided."""

    @property
    def rows(self) -> int:
        """Rows of its largest kind, beside the list of members."""
        return max((file.rows for kind, file in self.files.items() if kind not in ("units", "members")), default=0)


@dataclass(frozen=True)
class Generation:
    """Blocks that hold all of a corpus at one moment. state: see `Listing.state`."""

    folder: Path
    state: str
    fingerprint: str | None
    blocks: tuple[Block, ...]
    gone: Mapping[str, CompactFile] = field(default_factory=dict)
    """Rows that do not count: `gone_units`, `gone_sources` (unit, source_id), `gone_segments` (unit, segment_id) and, in any unit,
    `gone_forgotten` (segment_id), if there are any."""
    edition: str = ""
    """See `Listing.edition`: blocks of another edition may hold what is forgotten, and are not used."""

    def files(self, kind: str, loose: bool = False, judged: str | None = None, unlike: str | None = None) -> list[str]:
        """Return the paths, within the generation, of the files of one kind.

        loose: those of loose blocks. judged, unlike: only those of blocks that were, or were not, judged by these thresholds.
        """
        return [
            block.files[kind].path
            for block in self.blocks
            if block.loose == loose
            and kind in block.files
            and judged in (None, block.judged)
            and unlike != block.judged
        ]

    def all_files(self) -> Iterator[CompactFile]:
        """Yield every file."""
        for block in self.blocks:
            yield from block.files.values()
        yield from self.gone.values()

    def is_there(self) -> bool:
        """Return True if every file is there and has the size that it was written with."""
        try:
            return all((self.folder / file.path).stat().st_size == file.bytes for file in self.all_files())
        except FileNotFoundError:
            return False

    def is_whole(self) -> bool:
        """Return True if every file is as it was written. All of them are read."""
        return self.is_there() and all(file_sha256(self.folder / file.path) == file.sha256 for file in self.all_files())


def read_columns(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read columns (default: all) of a compacted file. `pyarrow.parquet.read_table` would import pandas, which takes 0.5 s."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return file.read(columns=columns)


def write_manifest(folder: Path, generation: Generation) -> None:
    """Write the manifest of a draft."""
    about = {
        "version": _VERSION,
        "state": generation.state,
        "fingerprint": generation.fingerprint,
        "edition": generation.edition,
        "blocks": [asdict(block) for block in generation.blocks],
        "gone": {kind: asdict(file) for kind, file in generation.gone.items()},
    }
    path = folder / MANIFEST
    with path.open("w", encoding="utf-8") as sink:
        json.dump(about, sink, indent=1)
        sink.flush()
        os.fsync(sink.fileno())


def present_generation(home: Path) -> Generation | None:
    """Return the newest generation below a folder (the corpus, or its cache); None if there is none that can be read.

    Raises CorpusError for a manifest that names files outside of its folder.
    """
    for folder in sorted(_folders(home), key=lambda folder: int(folder.name), reverse=True):
        found = _read(folder)
        if found is None:
            continue
        for file in found.all_files():
            if not is_inside(file.path):
                raise CorpusError(
                    f"{folder / MANIFEST} names {file.path}, which is not in this corpus: it was not written by voxmill; "
                    f"remove {folder.parent}"
                )
        return found
    return None


def _read(folder: Path) -> Generation | None:
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        about = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if about["version"] == _VERSION:
            return _generation(folder, about)
    return None


def next_number(home: Path) -> int:
    """Return the number of the next generation."""
    return max((int(folder.name) for folder in _folders(home)), default=0) + 1


def _folders(home: Path) -> list[Path]:
    return [folder for folder in (home / COMPACT).glob("*") if folder.name.isdecimal()]


def _generation(folder: Path, about: Mapping[str, Any]) -> Generation:
    blocks = tuple(
        Block(
            str(block["name"]),
            str(block["group"]),
            int(block["members"]),
            {str(kind): _file(file) for kind, file in block["files"].items()},
            bool(block["loose"]),
            str(block["judged"]),
        )
        for block in about["blocks"]
    )
    gone = {str(kind): _file(file) for kind, file in about["gone"].items()}
    return Generation(folder, str(about["state"]), about["fingerprint"], blocks, gone, str(about.get("edition", "")))


def _file(about: Mapping[str, Any]) -> CompactFile:
    return CompactFile(str(about["path"]), int(about["rows"]), int(about["bytes"]), str(about["sha256"]))


def retire(home: Path, edition: str = "") -> None:
    """Remove the generations that were replaced more than a day ago, each at once for readers. Those of another edition hold what
    was to be forgotten since: they are removed at once."""
    folders = sorted(_folders(home), key=lambda folder: int(folder.name))
    for old, newer in pairwise(folders):
        with suppress(OSError):
            found = _read(old) if edition else None
            is_other = found is not None and found.edition != edition
            if is_other or time.time() - newer.stat().st_mtime > _KEPT_S:
                _remove(home, old)


def _remove(home: Path, folder: Path) -> None:
    with own_scratch(home / "tmp") as scratch:
        os.replace(folder, scratch / "old")  # noqa: PTH105 - nobody sees half of it
        shutil.rmtree(scratch / "old", ignore_errors=True)
