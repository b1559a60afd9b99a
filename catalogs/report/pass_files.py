"""The notes that passes of annotators leave beside their descriptions: pass.json and verify.json.

They come with a corpus, perhaps from another person or another version, and a kill or a full disk may have damaged them. So each
value is checked on its own, and what is not as expected counts as absent.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable, Mapping
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
    prompt_version: str
    languages: list[str]
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
    prose_only: int | None
    """Descriptions whose attributes are right and whose prose is contradicted."""
    leaks: int | None
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
        for file, parse, into in (
            ("pass.json", _pass_note, found.passes),
            ("verify.json", _verify_note, found.verified),
        ):
            path = root / "annotations" / name / file
            if not os.path.lexists(path):
                continue
            values = _read(path)
            if values is None:
                found.unreadable.append(plain(f"annotations/{name}/{file}"))
            else:
                _add(into, parse, name, values)
    return found


def _add(into: list[Any], parse: Callable[[str, Mapping[str, Any]], Any], name: str, values: Mapping[str, Any]) -> None:
    into.append(parse(plain(name), values))


def _folders(base: Path) -> list[str]:
    """Return the names of the folders of passes. Links are not followed: they could lead out of the corpus."""
    with suppress(OSError), os.scandir(base) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))[:_MOST_PASSES]
    return []


def _read(path: Path) -> Mapping[str, Any] | None:
    """Return the object in a JSON file, or None. Only plain files of at most 1 MiB are opened."""
    try:
        about = path.lstat()
        if not stat.S_ISREG(about.st_mode) or about.st_size > _MOST_BYTES:
            return None
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _pass_note(name: str, values: Mapping[str, Any]) -> PassNote:
    return PassNote(
        annotator=name,
        provider=plain(values.get("provider")),
        model=plain(values.get("model")),
        prompt_version=plain(values.get("prompt_version")),
        languages=_texts(values.get("languages")),
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
        prose_only=_whole(values.get("prose_only")),
        leaks=_whole(values.get("leaks")),
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
