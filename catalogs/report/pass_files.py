"""The notes that passes of annotators leave beside their descriptions: pass.json and verify.json.

They come with a corpus, perhaps from another person or another version, and a kill or a full disk may have damaged them. So each
value is checked on its own, and what is not as expected counts as absent.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

_MOST_BYTES = 1 << 20
_MOST_PASSES = 100
_MOST_ENTRIES = 20
_MOST_CHARACTERS = 160
_GREATEST = 10**15
"""A greater number of clips, requests or dollars is a mistake."""


@dataclass(frozen=True)
class PassNote:
    """pass.json: what a paid pass did. Money in US dollars; None is unknown."""

    annotator: str
    provider: str
    model: str
    free: bool
    kept: int | None
    """Kept segments of the corpus."""
    selected: int | None
    """Segments that were selected to be described."""
    clips: dict[str, int]
    """Selected clips by status: ok, blocked, failed, unasked."""
    requests: dict[str, int]
    """Requests by state in the ledger."""
    spent_usd: float | None
    unknown_usd: float | None
    """Part of the spent money that was perhaps not billed: requests without a reply."""
    cap_usd: float | None
    cap_reached: bool
    stopped: str
    """Why the pass stopped before its end; empty if it did not."""
    at: str

    @property
    def cap_share(self) -> float | None:
        """Spent money as a share of the cap, at most 1; None without a cap."""
        return self._of_cap(self.spent_usd)

    @property
    def unknown_share(self) -> float:
        """The part of `cap_share` that was perhaps not billed."""
        return min(self._of_cap(self.unknown_usd) or 0.0, self.cap_share or 0.0)

    def _of_cap(self, dollars: float | None) -> float | None:
        return min(1.0, dollars / self.cap_usd) if self.cap_usd and dollars is not None else None


@dataclass(frozen=True)
class VerifyNote:
    """verify.json: what the last verification found. Shares are 0-1."""

    annotator: str
    experts: list[str]
    invalid: int | None
    """Rows that hold no valid description."""
    tried: int
    """Clips in the retrieval test."""
    top1: float | None
    """Share of captions that are closest to their own transcript, among 20 of one voice."""
    expected: float | None
    """The same by chance."""
    at: str

    @property
    def leaking(self) -> bool:
        """Whether `top1` is above chance and three standard deviations."""
        if self.top1 is None or self.expected is None or not self.tried:
            return False
        return self.top1 > self.expected + 3 * math.sqrt(max(self.expected * (1 - self.expected), 0.0) / self.tried)


@dataclass(frozen=True)
class PassFiles:
    """The notes of all passes, in the order of their names, and the files that could not be read."""

    passes: list[PassNote] = field(default_factory=list)
    verified: list[VerifyNote] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def read_pass_files(root: Path) -> PassFiles:
    """Return what can be read of the notes of a corpus. Never raises for their content."""
    found = PassFiles()
    for name in _folders(root / "annotations"):
        paid, verified = (
            _read(root, f"annotations/{name}/{file}", found.unreadable) for file in ("pass.json", "verify.json")
        )
        if paid is not None:
            found.passes.append(_pass_note(plain(name), paid))
        if verified is not None:
            found.verified.append(_verify_note(plain(name), verified))
    return found


def _folders(base: Path) -> list[str]:
    """Return the names of the folders of passes. Links are not followed: they could lead out of the corpus."""
    with suppress(OSError), os.scandir(base) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))[:_MOST_PASSES]
    return []


def _read(root: Path, name: str, unreadable: list[str]) -> Mapping[str, Any] | None:
    """Return the object in a JSON file, or None; add the name to `unreadable` if there is a file, but no such object in it.

    Only plain files of at most 1 MiB are opened.
    """
    path = root / name
    with suppress(OSError, ValueError, RecursionError):
        about = path.lstat()
        if stat.S_ISREG(about.st_mode) and about.st_size <= _MOST_BYTES:
            values = json.loads(path.read_bytes())
            if isinstance(values, dict):
                return values
    if os.path.lexists(path):
        unreadable.append(plain(name))
    return None


def _pass_note(name: str, values: Mapping[str, Any]) -> PassNote:
    return PassNote(
        annotator=name,
        provider=plain(values.get("provider")),
        model=plain(values.get("model")),
        free=values.get("free") is True,
        kept=_whole(values.get("kept")),
        selected=_whole(values.get("selected")),
        clips=_counts(values.get("clips")),
        requests=_counts(values.get("requests")),
        spent_usd=_number(values.get("spent_usd")),
        unknown_usd=_number(values.get("unknown_usd")),
        cap_usd=_number(values.get("cap_usd")),
        cap_reached=values.get("cap_reached") is True,
        stopped=plain(values.get("stopped")),
        at=_time(values.get("at")),
    )


def _verify_note(name: str, values: Mapping[str, Any]) -> VerifyNote:
    retrieval = values.get("retrieval")
    tested: Mapping[str, Any] = retrieval if isinstance(retrieval, dict) else {}
    return VerifyNote(
        annotator=name,
        experts=_texts(values.get("experts")),
        invalid=_whole(values.get("invalid")),
        tried=_whole(tested.get("tried")) or 0,
        top1=_share(tested.get("top1")),
        expected=_share(tested.get("expected")),
        at=_time(values.get("at")),
    )


def plain(value: object, most: int = _MOST_CHARACTERS) -> str:
    """Return a text as one line of at most `most` printable signs, "" for anything else."""
    if not isinstance(value, str):
        return ""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in value[: 4 * most]).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _texts(value: object) -> list[str]:
    return [text for one in value[:_MOST_ENTRIES] if (text := plain(one))] if isinstance(value, list) else []


def _number(value: object) -> float | None:
    """Return a finite number from 0, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _GREATEST:
        return None
    return float(value)


def _whole(value: object) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _share(value: object) -> float | None:
    number = _number(value)
    return number if number is not None and number <= 1 else None


def _counts(value: object) -> dict[str, int]:
    """Return a table of counts without its zeros."""
    pairs = list(value.items())[:_MOST_ENTRIES] if isinstance(value, dict) else []
    return {plain(name): count for name, found in pairs if (count := _whole(found))}


def _time(value: object) -> str:
    """Return a time in ISO 8601 as it is shown, "" for anything else."""
    with suppress(ValueError):
        return datetime.fromisoformat(plain(value)).strftime("%Y-%m-%d %H:%M")
    return ""
