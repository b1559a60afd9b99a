"""Tars of WebDataset: members of one key, one after the other, are a clip. Nothing is unpacked to the disk."""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from catalogs.exchange.sources.row import LARGEST_BYTES, BadRow, Roots, Row, RowError, facts_of, is_audio
from catalogs.files import one_line

_LARGEST_TEXT = 16 * 1024 * 1024
_SUFFIXES = (".tar", ".tar.gz", ".tgz")


def files(path: Path) -> list[Path] | None:
    """Return the tars of a file or folder, in order of their names."""
    if path.is_file():
        return [path] if path.name.lower().endswith(_SUFFIXES) else None
    found = sorted(file for file in path.iterdir() if file.is_file() and file.name.lower().endswith(_SUFFIXES))
    return [file for file in found if not file.name.startswith(".")] or None


def rows(file: Path, roots: Roots) -> Iterator[Row | BadRow]:
    """Yield the clips of a tar; damage ends it with one bad row."""
    key = ""
    try:
        with tarfile.open(file, mode="r|*") as tar:
            for key, members in groupby(_members(tar), key=lambda one: one[0]):
                name = f"{file.name}#{key}"
                held: dict[str, bytes | str] = {}
                for _, suffix, data in members:
                    held[suffix] = data
                try:
                    yield _row(name, key, held)
                except RowError as error:
                    yield BadRow(name, str(error))
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        yield BadRow(
            f"{file.name}#after {key or 'its start'}", f"the tar is damaged from here ({one_line(error)[:300]})"
        )


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, str, bytes | str]]:
    """Yield (key, suffix, content or the reason why there is none) of every member that is a file or a link."""
    for member in tar:
        if member.isdir():
            continue
        path = PurePosixPath(member.name)
        stem, _, suffix = path.name.partition(".")
        key = str(path.parent / stem)
        limit = LARGEST_BYTES if is_audio(path.name) else _LARGEST_TEXT
        if not member.isfile():
            yield key, suffix, "it is a link or a device in the tar, which is not followed"
        elif member.size > limit:
            yield key, suffix, f"it has {member.size / 1e6:.0f} MB, more than the {limit / 1e6:.0f} that are read"
        else:
            source = tar.extractfile(member)
            yield key, suffix, source.read() if source else "it holds nothing"
        tar.members = []  # type: ignore[attr-defined] # A tar keeps what it has read: a million members have 1 GB.


def _row(name: str, key: str, held: dict[str, bytes | str]) -> Row:
    bad = next((f"{suffix}: {value}" for suffix, value in held.items() if isinstance(value, str)), None)
    if bad:
        raise RowError(bad)
    content: dict[str, Any] = held
    audio = next((data for suffix, data in content.items() if is_audio(f"a.{suffix}")), None)
    if audio is None:
        raise RowError(f"it holds no audio, only: {', '.join(sorted(held))[:200]}")
    about: Any = {}
    if "json" in content:
        try:
            about = json.loads(content["json"])
        except (ValueError, RecursionError):
            about = None
        if not isinstance(about, dict):
            raise RowError("its json is not an object")
    text = next((content[suffix] for suffix in ("txt", "lab", "text") if suffix in content), None)
    if text is not None and not about.get("text"):
        about["text"] = text.decode("utf-8", errors="replace")
    facts = facts_of(about)
    # WebDataset's own key, if the clip has no identity.
    facts.setdefault("id", key.lstrip("./"))
    return Row(name, facts, lambda: audio)
