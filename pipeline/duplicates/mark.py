"""Mark duplicates over the whole corpus. Nothing is deleted, and no segment is written again.

What is needed of a segment is read once, when its unit is new, into `pipeline.duplicates.store`. A pass searches the new segments
among all (`pipeline.duplicates.search`) and writes the groups of all linked segments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from catalogs.corpus.damage import reading
from catalogs.corpus.duplicates import KINDS, duplicates_path, duplicates_state, read_duplicates, write_duplicates
from catalogs.corpus.ids import short_hash
from catalogs.corpus.reader import Corpus, without
from catalogs.corpus.schema import SEGMENTS, fill
from catalogs.corpus.shards import Shard
from pipeline.duplicates.groups import Link, duplicate_rows
from pipeline.duplicates.search import search_prints, search_texts
from pipeline.duplicates.store import NewUnit, Store, StoreDamagedError, opened

_VERSION = "1"
_COLUMNS = pa.schema(
    [
        SEGMENTS.field(name)
        for name in ("segment_id", "source_id", "session_id", "seq", "text", "audio_sha256", "audio_print")
    ]
)
_BATCH_BYTES = 4_000_000
"""Bytes of fingerprints (18 hours of speech) that are read into the store at once. A killed pass loses no more than this."""
_BATCH_ROWS = 100_000


@dataclass(frozen=True)
class Marked:
    """Result of a pass: segments that are a duplicate of an earlier one, by kind. `done` is False if nothing had changed."""

    segments: int
    kinds: dict[str, int] = field(default_factory=dict)
    done: bool = True


@dataclass(frozen=True)
class _Unit:
    """Where the segments of a unit are, and the ids of its sources that were processed again in another unit."""

    shard: str
    older: tuple[str, ...]

    @property
    def mark(self) -> str:
        return short_hash(*self.older) if self.older else ""


def work_folder(root: str | Path) -> Path:
    """Return the folder of the store of a corpus. It may be removed: the next pass makes it again."""
    return duplicates_path(root).with_name("work")


def mark_duplicates(root: str | Path, cosine: float) -> Marked:
    """Compare new segments with all segments with audio of a corpus and write `annotations/duplicates`; a second call without
    new units is free.

    `cosine`: minimum cosine of the voiceprints of two clips of one voice (the encoder's threshold). The result depends on
    the committed units and on what was first in the previous pass, not on the order in which units were committed, nor on the
    passes they came in. Memory is 0.4 GB, up to 1 GB of pages of the store that the system may take back, and a kilobyte per
    linked segment.
    """
    corpus = Corpus(root)
    units, names = {}, []
    for record in corpus.records:
        names.append(record["unit_id"])
        for file in record["files"]:
            if file["kind"] == "segments":
                units[record["unit_id"]] = _Unit(file["path"], tuple(record.get("superseded") or ()))
    state = short_hash(_VERSION, str(cosine), *sorted(names))
    if duplicates_state(root) == state:
        return _summary(root, done=False)
    with opened(work_folder(root)) as store:
        try:
            rows = _marked(store, corpus.path, units, cosine)
        except StoreDamagedError:
            store.reset()
            rows = _marked(store, corpus.path, units, cosine)
        if names:
            write_duplicates(root, rows, state)
    return _summary(root)


def _summary(root: str | Path, done: bool = True) -> Marked:
    import pyarrow.compute as pc

    counts = pc.value_counts(read_duplicates(root).column("duplicate_kind").drop_null()).to_pylist()
    kinds = {row["values"]: row["counts"] for row in counts}
    return Marked(sum(kinds.values()), dict(sorted(kinds.items())), done)


def _marked(store: Store, root: Path, units: Mapping[str, _Unit], cosine: float) -> list[dict[str, Any]]:
    """Bring the store up to date; return the rows of all linked segments."""
    known = store.units()
    if not all(_is_current(root, units.get(unit), *read) for unit, read in known.items()):
        # Segments are gone (--redo, another attempt at a recording): what they hid from each other must be found.
        store.reset()
        known = {}
    for batch in _batches(root, {name: unit for name, unit in units.items() if name not in known}):
        store.add(batch)
    search_prints(store)
    search_texts(store, root, cosine)
    before = {row["segment_id"]: row for row in read_duplicates(root).to_pylist()}
    return _rows(store, before)


def _is_current(root: Path, unit: _Unit | None, shard: str, mark: str, rows: int) -> bool:
    if unit is None or unit.shard != shard:
        return False
    return unit.mark == mark or _segments(root, unit).num_rows == rows


def _batches(root: Path, units: Mapping[str, _Unit]) -> Iterator[list[NewUnit]]:
    batch: list[NewUnit] = []
    size = rows = 0
    for name, unit in sorted(units.items()):
        table = _segments(root, unit)
        batch.append(NewUnit(name, unit.shard, unit.mark, table))
        size, rows = size + table.column("audio_print").nbytes, rows + table.num_rows
        if size >= _BATCH_BYTES or rows >= _BATCH_ROWS:
            yield batch
            batch, size, rows = [], 0, 0
    if batch:
        yield batch


def _segments(root: Path, unit: _Unit) -> pa.Table:
    """Return the rows of a unit that count, with their position in its shard as `row`."""
    with reading(root / unit.shard):
        found = Shard(root / unit.shard).table()
        table = fill(found.select([name for name in _COLUMNS.names if name in found.schema.names]), _COLUMNS)
        table = table.append_column("row", pa.array(np.arange(table.num_rows, dtype=np.int32)))
        # A source that was processed again: its rows in the newer unit count.
        return without(table, "source_id", unit.older) if unit.older else table


def _rows(store: Store, before: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the DUPLICATES rows of the linked segments, in an order that does not depend on when they were committed."""
    texts = store.links("texts")
    kind = np.full((1, texts.shape[1]), KINDS.index("same_text"), dtype=np.uint64)
    links = np.concatenate([store.links("exact"), store.links("audio"), np.concatenate([texts[2:], kind])], axis=1)
    numbers = np.unique(links[:2])
    table = store.segments(numbers).append_column("number", pa.array(np.arange(len(numbers))))
    table = table.sort_by([(name, "ascending") for name in ("session_id", "seq", "segment_id")])
    ids = table.column("segment_id").to_pylist()
    place = np.empty(len(numbers), dtype=np.int64)
    # A segment that two units hold (an error that `fsck` reports) is one segment.
    firsts = {segment: at for at, segment in reversed(list(enumerate(ids)))}
    place[table.column("number").to_numpy()] = [firsts[segment] for segment in ids]
    one, two = (place[np.searchsorted(numbers, side)].tolist() for side in links[:2])
    kinds = [KINDS[kind] for kind in links[2].tolist()]
    pairs = [Link(min(a, b), max(a, b), kind) for a, b, kind in zip(one, two, kinds, strict=True) if a != b]
    hashes = [value.hex() if any(value) else None for value in table.column("sha").to_pylist()]
    return duplicate_rows(ids, hashes, pairs, before)
