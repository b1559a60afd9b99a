"""Write a synthetic corpus in the layout of `catalogs.corpus.commit`, without forcing every file to the disk.

Everything is as the pipeline leaves it (schemas, names, hashes, records), so that `voxmill fsck` finds no fault. What is not real:
the audio is one of 32 clips of 0.2 s whatever the duration says, and embeddings and fingerprints are drawn, not computed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from multiprocessing import get_context
from pathlib import Path

from scale_parts.kinds import Kind
from scale_parts.rows import FINGERPRINT, block
from scale_parts.units import Unit, identity_of, renamed, render

from catalogs.corpus.commit import bind_fingerprint, create_corpus, record_path
from catalogs.corpus.ids import unit_id

_BLOCK_ROWS = 20_000


def make_corpus(root: Path, kind: Kind, seed: int = 1, jobs: int = 1, log: Callable[[str], None] = print) -> None:
    """Make a corpus, or what is missing of one: units that have a record are left alone. jobs: number of processes."""
    create_corpus(root, name=kind.name)
    bind_fingerprint(root, FINGERPRINT)
    step = max(1, _BLOCK_ROWS // kind.rows)
    blocks = [(root, kind, first, min(step, kind.units - first), seed) for first in range(0, kind.units, step)]
    started, done = time.monotonic(), 0
    with ExitStack() as stack:
        pool = stack.enter_context(get_context("spawn").Pool(jobs)) if jobs > 1 else None
        for count in pool.imap_unordered(_add, blocks) if pool else map(_add, blocks):
            done += count
            log(f"{kind.name}: {done:,} of {kind.units:,} units, {time.monotonic() - started:.0f} s")


def _add(given: tuple[Path, Kind, int, int, int]) -> int:
    add_units(*given)
    return given[3]


def add_units(root: Path, kind: Kind, first: int, count: int, seed: int = 1) -> None:
    """Write the units `first` to `first + count - 1`, whatever the size of the corpus."""
    if kind.drawn:
        for number in range(first, first + count):
            drawn = _drawn(kind, seed)[number % kind.drawn]
            _write(root, drawn if number == drawn.number else renamed(drawn, number))
        return
    rows = block(kind, first, count, seed)
    for at in range(count):
        recordings = rows.recordings.slice(at * kind.recordings, kind.recordings)
        if not record_path(root, unit_id(identity_of(recordings), FINGERPRINT)).is_file():
            _write(root, render(kind, rows, first, at, seed))


@cache
def _drawn(kind: Kind, seed: int) -> list[Unit]:
    rows = block(kind, 0, kind.drawn, seed)
    return [render(kind, rows, 0, at, seed) for at in range(kind.drawn)]


def _write(root: Path, unit: Unit) -> None:
    """Write the record last, whole or not at all, so that a killed run can be continued."""
    final = record_path(root, unit.unit_id)
    if final.is_file():
        return
    for file in unit.files:
        _put(root / file.path, file.data)
    for path, data in unit.beside.items():
        _put(root / path, data)
    draft = root / "tmp" / f"{unit.unit_id}.json"
    _put(draft, unit.record)
    final.parent.mkdir(parents=True, exist_ok=True)
    os.replace(draft, final)  # noqa: PTH105


def _put(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
