"""Digests of what steps made. What takes long to read is read again only if its size or time changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from catalogs.files import file_sha256, write_atomically
from catalogs.urls import is_location

_WEIGHTS = ("*.safetensors", "config.json", "tokenizer.json")
"""Files of a checkpoint or codec that determine what it says."""
_CHECKS = "checks"
"""Folder of a pass with findings of `verify`: nothing that a model reads."""


def digest_of(value: Any) -> str:
    """Return 24 hex digits over a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:24]


class Digests:
    """Digests of files and corpora, remembered in `path` with sizes and times of what was read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._known: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._known = {}

    def _cached(self, key: str, stamp: str, compute: Callable[[], str]) -> str:
        known = self._known.get(key)
        if known is not None and known[0] == stamp:
            return known[1]
        found = compute()
        self._known[key] = [stamp, found]
        if self._path.parent.is_dir():
            write_atomically(self._path, json.dumps(self._known, indent=1).encode())
        return found

    def files(self, folder: Path, paths: Iterable[Path]) -> str | None:
        """Return a digest of the names and contents of files; None if there are none."""
        found = sorted(path for path in paths if path.is_file())
        if not found:
            return None
        stamp = digest_of([_stamp(folder, path) for path in found])
        return self._cached(
            str(folder),
            stamp,
            lambda: digest_of([[str(path.relative_to(folder)), file_sha256(path)] for path in found]),
        )

    def tree(self, folder: Path) -> str | None:
        """Return a digest of all files below a folder; None if there are none."""
        return self.files(folder, folder.rglob("*"))

    def weights(self, folder: Path) -> str | None:
        """Return a digest of the weights and the config of a checkpoint, an adapter or a codec; None if there are none."""
        # The link `latest` may move to another checkpoint.
        real = folder.resolve()
        return self.files(real, (path for pattern in _WEIGHTS for path in real.glob(pattern)))

    def units(self, corpus: Path) -> str | None:
        """Return a digest of the committed units of a corpus; None if the folder is not a corpus."""
        from catalogs.compaction.listing import listing
        from catalogs.corpus.commit import CorpusError

        try:
            found = listing(corpus)
        except (CorpusError, OSError):
            return None
        return digest_of([found.fingerprint, found.units, *([found.edition] if found.edition else [])])

    def corpus(self, root: Path, facet: str) -> str | None:
        """Return a digest of what a step reads of a corpus: `segments`, or `whole` with the descriptions."""
        from catalogs.compaction.listing import listing
        from catalogs.corpus.marks import marks_state
        from catalogs.corpus.thresholds import load_thresholds

        units = self.units(root)
        if units is None:
            return None
        segments = [units, load_thresholds(root).model_dump(mode="json"), marks_state(root)]
        if facet == "segments":
            return digest_of(segments)
        found = listing(root)
        entries = [entry for entry in found.entries if _is_description(entry.path)]
        described = self._cached(
            f"{root}/annotations",
            found.state,
            lambda: digest_of([[entry.path, file_sha256(root / entry.path)] for entry in entries]),
        )
        return digest_of([segments, described])


def _is_description(path: str) -> bool:
    parts = path.split("/")
    return parts[0] == "annotations" and _CHECKS not in parts


def _stamp(folder: Path, path: Path) -> list[Any]:
    about = path.stat()
    return [str(path.relative_to(folder)), about.st_size, about.st_mtime_ns]


def sources_digest(sources: Iterable[str]) -> str:
    """Return a digest of names, sizes and times of the files of sources. `prepare` compares contents itself."""
    found: list[Any] = []
    for source in sources:
        paths = [] if is_location(source) else _expanded(source)
        found.append([source, sorted(_stamp(Path("/"), path) for path in paths)])
    return digest_of(found)


def _expanded(source: str) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        return [inner for inner in path.rglob("*") if inner.is_file()]
    if path.exists():
        return [path]
    return [inner for inner in Path("/").glob(source.lstrip("/")) if inner.is_file()]
