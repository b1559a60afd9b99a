"""Tokens: what a metric's row was computed from. A row with another token is of a take that has been made again since.

The token of a take covers its status and the bytes of its audio, and those of the recording of a person if the metric needs it. If
takes are scored in one call, it covers all of them and their groups; if a figure depends on the other items of the run, these too.
The text, the instruction and the reference are part of the item's id.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from catalogs.files import file_sha256
from evaluation.items import Item
from evaluation.metrics.base import Metric, Take
from evaluation.runs.rows import Key

_LENGTH = 16


def key_of(take: Take) -> Key:
    """Return the key of a take's rows."""
    return take.item.id, take.seed


def together(metric: Metric, takes: Sequence[Take]) -> tuple[list[list[Take]], list[Take]]:
    """Return the takes that are scored in one call, and those that are independent."""
    keyed: dict[str, list[Take]] = {}
    free: list[Take] = []
    for take in takes:
        key = metric.group(take)
        if key is None:
            free.append(take)
        else:
            keyed.setdefault(key, []).append(take)
    return list(keyed.values()), free


def tokens(metric: Metric, by_name: Mapping[str, Metric], takes: Sequence[Take]) -> dict[Key, str]:
    """Return a token of 16 hex digits per take. `takes`: all that the metric can score."""
    human = _needs_human(metric, by_name)
    beside: list[Any] = []
    if takes and any(value.relative for value in metric.values):
        beside = [_named(item) for item in takes[0].items]
    groups, free = together(metric, takes)
    found = {key_of(take): _hash([_made_of(take, human), beside]) for take in free}
    for group in groups:
        members = sorted(([take.seed, _named(take.item), _made_of(take, human)] for take in group), key=json.dumps)
        found |= dict.fromkeys(map(key_of, group), _hash([members, beside]))
    return found


def _needs_human(metric: Metric, by_name: Mapping[str, Metric]) -> bool:
    return "human" in metric.needs or any(_needs_human(by_name[used], by_name) for used in metric.uses)


def _made_of(take: Take, human: bool) -> list[str | None]:
    parts = [take.status, take.row.get("audio_sha256")]
    if human and take.item.human is not None:
        parts.append(_digest(take.item.human))
    return parts


def _named(item: Item) -> list[Any]:
    return [item.id, item.list_name, dict(sorted(item.groups.items()))]


def _hash(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_LENGTH]


def _digest(path: Path) -> str:
    """Return the sha256 of a file; of one that cannot be read, an empty text."""
    try:
        found = path.stat()
        return _sha256(path, found.st_size, found.st_mtime_ns)
    except OSError:
        return ""


@functools.lru_cache(maxsize=65536)
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    """Return the sha256 of a file. It is read once per process, because every metric asks for it."""
    del size, changed_ns
    return file_sha256(path)
