"""Audio files out of the tar archives that a test set is published as."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Collection
from pathlib import Path

from catalogs.corpus.commit import is_inside
from catalogs.files import one_line, write_atomically
from evaluation.errors import EvaluationError


def extract(archive: Path, wanted: Collection[str], root: Path) -> dict[str, Path]:
    """Return the files of an archive by path; `wanted` are ends of member names, such as `testset/en/1.wav`.

    They are written below `root`, whole or not at all, and once: the archive is read again only for files that are not there yet.
    A path that the archive lacks is absent from the result. Raises EvaluationError for a damaged archive or a path that leaves it.
    """
    for name in wanted:
        if not is_inside(name):
            raise EvaluationError(f"{archive}: the path {name!r} is not inside the archive")
    state = archive.stat()
    key = hashlib.sha256(f"{archive.resolve()} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()[:16]
    folder = root / "archives" / key
    listing = folder / "members.json"
    if listing.is_file():
        members = set(json.loads(listing.read_text(encoding="utf-8")))
        if all((folder / name).is_file() for name in wanted if name in members):
            return {name: folder / name for name in wanted if name in members}
    return _read(archive, set(wanted), folder, listing)


def _read(archive: Path, wanted: set[str], folder: Path, listing: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    ends: set[str] = set()
    try:
        with tarfile.open(archive) as source:
            for member in source:
                if not member.isfile():
                    continue
                parts = [part for part in member.name.split("/") if part != "."]
                tails = ["/".join(parts[start:]) for start in range(len(parts))]
                ends.update(tails)
                name = next((tail for tail in tails if tail in wanted), None)
                content = source.extractfile(member) if name else None
                if name and content:
                    write_atomically(folder / name, content.read())
                    found[name] = folder / name
    except (tarfile.TarError, EOFError, OSError) as error:
        raise EvaluationError(f"{archive} cannot be unpacked ({one_line(error)}); fetch it again") from None
    write_atomically(listing, json.dumps(sorted(ends), ensure_ascii=False).encode())
    return found
