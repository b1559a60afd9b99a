"""What a container's listing gives: its recordings, what is told of them, and what was passed over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from pipeline.manifests import COLUMNS
from pipeline.records import TimedText


@dataclass(frozen=True)
class Member:
    """One recording of a container: where it is, what it is called, its content, and what the container says of it.

    `fault` is set instead of a hash where it (or the rest of the container) cannot be read.
    """

    location: str
    name: str
    bytes: int = 0
    sha256: str = ""
    session: str | None = None
    language: str | None = None
    text: str | None = None
    license: str | None = None
    spans: tuple[TimedText, ...] = ()
    extent: tuple[int, int] | None = None
    """(offset, size) in bytes of its content in an uncompressed tar."""
    fault: str | None = None


@dataclass
class Aside:
    """What a listing passes over, so that nothing is left out in silence."""

    left: Counter[str] = field(default_factory=Counter)
    """Files that are plainly no recordings (some are read as transcripts), by ending."""
    unopened: list[str] = field(default_factory=list)
    """Archives that are not opened: of another kind, or within another archive."""
    notices: list[str] = field(default_factory=list)
    """Lines for a person, e.g. that a transcript beside a recording cannot be read."""

    def leave(self, name: str) -> None:
        """Count a file that is no recording."""
        self.left[PurePosixPath(name).suffix.lower()] += 1


def known_facts(row: Mapping[str, Any]) -> dict[str, str]:
    """session, language, text, license of a row, under any of the names that tools give them."""
    found = {}
    for column, names in COLUMNS.items():
        if column == "path":
            continue
        value = next((row[name] for name in names if isinstance(row.get(name), str) and row[name].strip()), None)
        if value is not None:
            found[column] = value.strip()
    return found


def one_line(error: BaseException) -> str:
    """What an error says, in one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
