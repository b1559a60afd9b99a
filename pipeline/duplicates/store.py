"""What the search for duplicates knows of each segment, on disk: read from the shards once, when a unit is new.

annotations/duplicates/work/
    manifest.json        the files below that count, written last; without it, or with a damaged one, all is read again
    words.bin            uint16: fingerprints one after another, silence between them; appended to
    starts.bin           uint64: where each segment's fingerprint starts, in words; appended to
    segments-*.arrow     ids, order and places of the segments; a segment's number is its position in all of these files
    keys-*.npy           sorted runs (pipeline.duplicates.sorted_runs): (key of three words, place in words.bin)
    sha-*, text-*.npy    sorted runs: (first half of a 128-bit hash, second half, segment)
    exact-*, audio-*.npy links: (segment, segment, kind);   texts-*.npy: (hash, hash, segment, segment)

About 3.8 MB per hour of speech. Everything here can be removed: the next pass makes it again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from catalogs.files import fsync_path, write_atomically, write_durably
from pipeline.duplicates.audio_print import SILENT
from pipeline.duplicates.match import FENCE, print_keys
from pipeline.duplicates.same_text import text_key
from pipeline.duplicates.sorted_runs import find, merge_runs, open_run, release, to_merge, write_run

_VERSION = 1
_SEGMENTS = pa.schema(
    [
        ("segment_id", pa.string()),
        ("session_id", pa.string()),
        ("seq", pa.int32()),
        ("shard", pa.dictionary(pa.int32(), pa.string())),
        ("row", pa.int32()),
        ("sha", pa.binary(16)),
    ]
)
KINDS_OF_RUNS = ("keys", "sha", "text", "exact", "audio", "texts")
Runs = list[tuple[str, int]]


class StoreDamagedError(Exception):
    """A file of the store is missing or not what the manifest says: the store is to be made again."""


@dataclass
class Manifest:
    """The state of a store. Only what it names counts."""

    version: int = _VERSION
    words: int = 0
    """Length of words.bin, in words."""
    heard: int = 0
    """Keys of one kind: words that are heard together with those of their key."""
    segments: int = 0
    few: bool = True
    """Whether all links were found by the rule for corpora of few words (`pipeline.duplicates.match.FEW_WORDS`)."""
    cosine: float | None = None
    """The limit by which links of texts were made."""
    chunks: list[tuple[str, int]] = field(default_factory=list)
    runs: dict[str, Runs] = field(default_factory=lambda: {kind: [] for kind in KINDS_OF_RUNS})
    fresh: dict[str, Runs] = field(default_factory=lambda: {"keys": [], "text": []})
    """Runs of segments that have not been searched yet."""


@dataclass(frozen=True)
class NewUnit:
    """The segments with audio of a unit. mark: changes if other rows of the unit count.

    table: columns segment_id, session_id, seq, row, audio_sha256, audio_print and text.
    """

    unit: str
    shard: str
    mark: str
    table: pa.Table


class Store:
    """The store of one corpus. Open it with `opened`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.about = self._read()
        self._chunks: dict[str, pa.Table] = {}

    def _read(self) -> Manifest:
        try:
            told = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
            about = Manifest(**told)
            sizes = [(self.folder / "words.bin", 2 * about.words), (self.folder / "starts.bin", 8 * about.segments)]
            whole = about.version == _VERSION and all(size == 0 or path.stat().st_size >= size for path, size in sizes)
            for kind in (*about.runs.values(), *about.fresh.values()):
                whole = whole and all(open_run(self.folder, name).shape[1] == rows for name, rows in kind)
            return about if whole else Manifest()
        except (OSError, ValueError, TypeError, AttributeError):
            return Manifest()

    def save(self) -> None:
        """Make the present state the one that counts."""
        write_atomically(self.folder / "manifest.json", json.dumps(asdict(self.about)).encode())

    def reset(self) -> None:
        """Forget everything."""
        self.about = Manifest()
        self._chunks.clear()
        self.save()
        self.sweep()

    def sweep(self) -> None:
        """Remove files that the manifest does not name, left by a pass that was killed."""
        runs = [*self.about.runs.values(), *self.about.fresh.values(), self.about.chunks]
        named = {name for run in runs for name, _ in run} | {"manifest.json", "words.bin", "starts.bin", ".lock"}
        for path in self.folder.iterdir():
            if path.name not in named:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def units(self) -> dict[str, tuple[str, str, int]]:
        """Return (shard, mark, rows) of each unit that was read."""
        found: dict[str, tuple[str, str, int]] = {}
        for name, _ in self.about.chunks:
            for unit, shard, mark, rows in json.loads(self._chunk(name).schema.metadata[b"units"]):
                found[unit] = (shard, mark, rows)
        return found

    def add(self, units: Sequence[NewUnit]) -> None:
        """Append the segments of new units. They count at once; searching them is left to `pipeline.duplicates.search`."""
        base, tables = self.about.segments, [unit.table for unit in units]
        table = pa.concat_tables(tables).combine_chunks()
        sha = _halves(table.column("audio_sha256").to_pylist())
        text = _halves([text_key(value) for value in table.column("text").to_pylist()])
        copies = self._exact(sha, base)
        words, starts = _words(table.column("audio_print"), self.about.words)
        is_copy = np.isin(np.arange(base, base + table.num_rows), copies[1])
        keys, heard = _keys(words, starts.astype(np.int64) - self.about.words, is_copy, self.about.words)
        self._append("words.bin", words, 2 * self.about.words)
        self._append("starts.bin", starts, 8 * base)
        chunk = self._write_chunk(units, table, sha)
        for kind, rows in (("keys", keys), ("text", _present(text, base))):
            if rows.shape[1]:
                self.about.fresh[kind].append(write_run(self.folder, kind, rows))
        for kind, rows in (("sha", _present(sha, base)), ("exact", copies)):
            if rows.shape[1]:
                self.about.runs[kind].append(write_run(self.folder, kind, rows))
                self.tidy(kind)
        self.about.chunks.append((chunk, table.num_rows))
        self.about.words += len(words)
        self.about.heard += heard
        self.about.segments += table.num_rows
        self.save()

    def _exact(self, sha: np.ndarray, base: int) -> np.ndarray:
        """Return links (first, copy, 0) of segments whose hash an earlier segment has."""
        numbers = np.arange(base, base + sha.shape[1], dtype=np.uint64)
        order = np.lexsort((numbers, sha[1], sha[0]))
        high, low, own = sha[0][order], sha[1][order], numbers[order]
        starts = np.ones(len(own), dtype=bool)
        starts[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        first = own[np.maximum.accumulate(np.where(starts, np.arange(len(own)), 0))] if len(own) else own
        for run in self.maps("sha"):
            place = np.minimum(find(run, high), run.shape[1] - 1)
            same = (run[0][place] == high) & (run[1][place] == low)
            first = np.where(same, np.minimum(first, run[2][place]), first)
            release(run)
        copy = (first != own) & ((high != 0) | (low != 0))
        return np.stack([first[copy], own[copy], np.zeros(int(copy.sum()), dtype=np.uint64)])

    def _append(self, name: str, values: np.ndarray, at: int) -> None:
        path = self.folder / name
        with path.open("r+b" if path.exists() else "w+b") as sink:
            # A killed pass may have written more than the manifest says.
            sink.truncate(at)
            sink.seek(at)
            sink.write(np.ascontiguousarray(values).data)
            sink.flush()
            os.fsync(sink.fileno())

    def _write_chunk(self, units: Sequence[NewUnit], table: pa.Table, sha: np.ndarray) -> str:
        shards = [unit.shard for unit in units]
        place = np.repeat(np.arange(len(units), dtype=np.int32), [unit.table.num_rows for unit in units])
        columns = [table.column(name).combine_chunks() for name in ("segment_id", "session_id", "seq", "row")]
        whole = np.ascontiguousarray(sha.T.astype(">u8")).tobytes()
        columns.insert(3, pa.DictionaryArray.from_arrays(pa.array(place), pa.array(shards, pa.string())))
        columns.append(pa.Array.from_buffers(pa.binary(16), table.num_rows, [None, pa.py_buffer(whole)]))
        told = json.dumps([(unit.unit, unit.shard, unit.mark, unit.table.num_rows) for unit in units])
        written = pa.table(
            [_flat(c, f.type) for c, f in zip(columns, _SEGMENTS, strict=True)],
            schema=_SEGMENTS.with_metadata({b"units": told.encode()}),
        )
        name = f"segments-{len(self.about.chunks):06d}.arrow"

        def write(sink: Any) -> None:
            with pa.ipc.new_file(sink, written.schema) as writer:
                writer.write_table(written)

        write_durably(self.folder / name, write)
        fsync_path(self.folder)
        return name

    def _chunk(self, name: str) -> pa.Table:
        if name not in self._chunks:
            try:
                self._chunks[name] = pa.ipc.open_file(pa.memory_map(str(self.folder / name))).read_all()
            except (OSError, pa.ArrowException) as error:
                raise StoreDamagedError(str(error)) from None
        return self._chunks[name]

    def segments(self, numbers: np.ndarray) -> pa.Table:
        """Return the rows of segments by their numbers, which rise."""
        ends = np.cumsum([0, *(rows for _, rows in self.about.chunks)])
        parts = []
        for number, (name, _) in enumerate(self.about.chunks):
            first, last = np.searchsorted(numbers, ends[number : number + 2].astype(np.uint64))
            if last > first:
                own = numbers[first:last].astype(np.int64) - ends[number]
                found = self._chunk(name).take(pa.array(own))
                column = found.column("shard").cast(pa.string())
                parts.append(found.set_column(3, "shard", column).replace_schema_metadata(None))
        if not parts:
            return _SEGMENTS.empty_table()
        return pa.concat_tables(parts)

    def words(self) -> np.ndarray:
        """Return the fingerprints of all segments, uint16, with silence between them, as a map."""
        return self._map("words.bin", "<u2", self.about.words)

    def starts(self) -> np.ndarray:
        """Return where the fingerprint of each segment starts in `words`, uint64, as a map."""
        return self._map("starts.bin", "<u8", self.about.segments)

    def _map(self, name: str, kind: str, count: int) -> np.ndarray:
        if not count:
            return np.zeros(0, dtype=kind)
        return np.memmap(self.folder / name, dtype=kind, mode="r", shape=(count,))

    def maps(self, kind: str, fresh: bool = False) -> list[np.ndarray]:
        """Return the runs of one kind as maps; with `fresh`, those that were not searched yet."""
        return [open_run(self.folder, name) for name, _ in (self.about.fresh if fresh else self.about.runs)[kind]]

    def links(self, kind: str) -> np.ndarray:
        """Return all links of one kind of runs, uint64 `[C, N]`."""
        width = 4 if kind == "texts" else 3
        return np.concatenate([np.zeros((width, 0), dtype=np.uint64), *self.maps(kind)], axis=1)

    def join_fresh(self, kind: str) -> np.ndarray | None:
        """Return the runs that were not searched yet as one map; None if there is none."""
        runs = self.about.fresh[kind]
        if len(runs) > 1:
            self.about.fresh[kind] = [merge_runs(self.folder, kind, [name for name, _ in runs])]
            self.save()
            self.sweep()
        return next(iter(self.maps(kind, fresh=True)), None)

    def replace(self, kind: str, rows: np.ndarray) -> None:
        """Let these rows be all that there are of one kind. Counts after `save`."""
        self.about.runs[kind] = [write_run(self.folder, kind, rows)] if rows.shape[1] else []

    def renew(self, kind: str, links: str) -> None:
        """Let everything of a kind be searched again, and forget the links that were found by it."""
        self.about.fresh[kind] = self.about.runs[kind] + self.about.fresh[kind]
        self.about.runs[kind], self.about.runs[links] = [], []
        self.save()

    def append(self, kind: str, rows: np.ndarray) -> None:
        """Add a run. Counts after `save`."""
        if rows.shape[1]:
            self.about.runs[kind].append(write_run(self.folder, kind, rows))
            self.tidy(kind)

    def searched(self, kind: str) -> None:
        """Let the fresh runs of a kind be old ones. Counts after `save`."""
        for run in self.about.fresh[kind]:
            self.about.runs[kind].append(run)
            self.tidy(kind)
        self.about.fresh[kind] = []

    def tidy(self, kind: str) -> None:
        """Merge the last runs of a kind if there are too many. Counts after `save`."""
        runs = self.about.runs[kind]
        if count := to_merge([rows for _, rows in runs]):
            self.about.runs[kind] = [*runs[:-count], merge_runs(self.folder, kind, [name for name, _ in runs[-count:]])]


@contextmanager
def opened(folder: Path) -> Iterator[Store]:
    """Open the store in a folder, alone: a pass of another process is waited for."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        store = Store(folder)
        store.sweep()
        yield store


def _flat(column: Any, kind: pa.DataType) -> pa.Array:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return whole if whole.type == kind else whole.cast(kind)


def _halves(values: Sequence[str | None]) -> np.ndarray:
    """Return uint64 `[2, N]`: the two halves of a 128-bit hash of each value; 0 for None."""
    data = b"".join(bytes(16) if v is None else hashlib.blake2b(v.encode(), digest_size=16).digest() for v in values)
    return np.frombuffer(data, dtype=">u8").reshape(-1, 2).T.astype(np.uint64)


def _present(halves: np.ndarray, base: int) -> np.ndarray:
    """Return uint64 `[3, n]`: (half, half, segment) of the values that are not None."""
    there = np.flatnonzero((halves[0] != 0) | (halves[1] != 0))
    return np.concatenate([halves[:, there], (there + base).astype(np.uint64)[None]])


def _words(column: pa.ChunkedArray, before: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (uint16 words of all fingerprints with silence between and after them, uint64 starts counted from the first
    word of the store). A store begins with silence."""
    array = column.combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    ends = np.frombuffer(array.buffers()[1], dtype=np.int32)[array.offset : array.offset + len(array) + 1].astype(
        np.int64
    )
    lengths = np.diff(ends) // 2
    data = array.buffers()[2]
    flat = np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, dtype=np.uint8)
    lead = FENCE if before == 0 else 0
    starts = lead + np.cumsum([0, *(lengths + FENCE)])[:-1].astype(np.int64)
    words = np.full(lead + int((lengths + FENCE).sum()), SILENT, dtype="<u2")
    if lengths.sum():
        target = np.repeat(starts - np.cumsum([0, *lengths])[:-1], lengths) + np.arange(int(lengths.sum()))
        source = flat[ends[0] : ends[-1]]
        if (np.diff(ends) % 2).any():
            raise ValueError("a fingerprint has an odd number of bytes")
        words[target] = source.copy().view("<u2")
    return words, (starts + before).astype(np.uint64)


def _keys(words: np.ndarray, starts: np.ndarray, copies: np.ndarray, before: int) -> tuple[np.ndarray, int]:
    """Return (uint64 `[2, n]`: keys and places in the store, number of places that have keys).

    starts: of each fingerprint in `words`. copies: bool; they have no keys, because what matches them also matches their first.
    """
    keys, places = print_keys(words)
    owner = np.searchsorted(starts, places, side="right") - 1
    wanted = ~copies[owner]
    return np.stack([keys[wanted], places[wanted].astype(np.uint64) + np.uint64(before)]), len(keys) // 2
