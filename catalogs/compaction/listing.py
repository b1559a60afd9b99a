"""What lies in a corpus, by names: units and annotation files. This is compared with what a generation was made from."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from catalogs.corpus.commit import corpus_info
from catalogs.corpus.tombstones import edition

_FORMAT = "1"
"""Increased when a generation of the same files would hold other rows or columns."""
_NOW = "quarantine/now"
_SKIPPED = frozenset({"annotations/duplicates"})
"""Passes whose files are large already."""


class Entry(NamedTuple):
    """A file outside of the units. It may be replaced, so its size and time (ns) count too."""

    path: str
    """Within the corpus, with `/`."""
    bytes: int
    mtime_ns: int

    @property
    def group(self) -> str:
        """The folder of its pass, e.g. `annotations/gemini@1`, or `quarantine/now`."""
        return "/".join(self.path.split("/")[:2])

    @property
    def stem(self) -> str:
        """The name without `.parquet`: the unit's id in passes of voxmill."""
        return self.path.rpartition("/")[2].removesuffix(".parquet")


@dataclass(frozen=True)
class Listing:
    """Committed units and annotation files of a corpus at one moment."""

    fingerprint: str | None
    """Settings that the corpus is bound to."""
    units: list[str]
    """Sorted ids, of all settings."""
    entries: list[Entry]
    """Sorted."""
    edition: str = ""
    """What tombstones say of the units (`catalogs.corpus.tombstones.edition`): a unit keeps its name when some of it is erased."""

    @property
    def state(self) -> str:
        """A hash of the listing: a generation with another one is out of date."""
        found = hashlib.sha256(f"{_FORMAT}\n{self.fingerprint}\n".encode())
        found.update("\n".join(self.units).encode())
        found.update("\n".join(f"{one.path}\0{one.bytes}\0{one.mtime_ns}" for one in self.entries).encode())
        found.update(self.edition.encode())
        return found.hexdigest()[:24]


def listing(root: str | Path) -> Listing:
    """List a corpus. No record and no Parquet file is opened. Raises CorpusError if the folder is not a corpus."""
    root = Path(root)
    entries = [entry for folder in ("annotations", _NOW) for entry in _parquet_files(root, folder)]
    return Listing(corpus_info(root).get("fingerprint"), unit_names(root), sorted(entries), edition(root))


def unit_names(root: Path) -> list[str]:
    """Return the ids of all committed units, sorted."""
    found: list[str] = []
    for part in _scan(root / "units"):
        if part.is_dir():
            found += [name[:-5] for name in os.listdir(part.path) if name.endswith(".json")]  # noqa: PTH208 - 228,000 names
    return sorted(found)


def _parquet_files(root: Path, folder: str) -> list[Entry]:
    found: list[Entry] = []
    folders = [folder]
    while folders:
        base = folders.pop()
        for entry in _scan(root / base):
            name = entry.name
            # Unfinished files of other writers.
            if name.startswith((".", "tmp")):
                continue
            if name.endswith(".parquet") and not entry.is_dir():
                try:
                    about = entry.stat()
                except FileNotFoundError:
                    continue  # Removed meanwhile.
                found.append(Entry(f"{base}/{name}", about.st_size, about.st_mtime_ns))
            elif f"{base}/{name}" not in _SKIPPED and entry.is_dir():
                folders.append(f"{base}/{name}")
    return found


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []
