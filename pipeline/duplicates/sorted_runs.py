"""Files of sorted rows of uint64, and their merge in constant memory. A row is a column of an array `[C, N]`; row 0 is the key.

A file is written once, under a name that nothing refers to before the file is whole.
"""

from __future__ import annotations

import mmap
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Literal

import numpy as np

from catalogs.files import fsync_path

MOST_ROWS = 1 << 19
"""Rows that are merged at once: 8 MB per column pair."""
_KEYS, _DENSE_ROWS = 512, 1 << 20
"""Keys that are looked up at once if there are more rows between the first and the last of them than can be read in one piece. The
system maps 64 kB around each row that is read."""


def write_run(folder: Path, kind: str, rows: np.ndarray) -> tuple[str, int]:
    """Sort uint64 `[C, N]` by its first row (equal keys keep their order) and write it; return (file name, N)."""
    ordered = rows[:, np.argsort(rows[0], kind="stable")]
    name = f"{kind}-{uuid.uuid4().hex[:12]}.npy"
    with (folder / name).open("xb") as sink:
        _begin(sink, rows.shape[0], rows.shape[1])
        sink.write(np.ascontiguousarray(ordered, dtype="<u8").data)
        _finish(sink)
    fsync_path(folder)
    return name, rows.shape[1]


def open_run(folder: Path, name: str) -> np.ndarray:
    """Return a run as a read-only map, uint64 `[C, N]`. Raises ValueError or OSError if it is not readable."""
    path = folder / name
    with path.open("rb") as source:
        version = np.lib.format.read_magic(source)
        if version != (1, 0):
            raise ValueError(f"{path} has an unknown version")
        shape, _, kind = np.lib.format.read_array_header_1_0(source)
    if kind != np.dtype("<u8") or len(shape) != 2:
        raise ValueError(f"{path} does not hold sorted rows")
    if not shape[1]:
        return np.zeros(shape, dtype=np.uint64)
    return np.load(path, mmap_mode="r")


def release(*maps: np.ndarray) -> None:
    """Give back the memory of pages that were read through maps. The maps stay usable."""
    for array in maps:
        if isinstance(array.base, mmap.mmap):
            array.base.madvise(mmap.MADV_DONTNEED)


def find(run: np.ndarray, keys: np.ndarray, side: Literal["left", "right"] = "left") -> np.ndarray:
    """Return what `np.searchsorted(run[0], keys, side)` does, int64 `[N]`, for sorted keys. It reads few pages and gives them back:
    numpy reads other pages of the whole file for each key."""
    if not len(keys):
        return np.zeros(0, dtype=np.int64)
    first, last = _bounds(run, keys[[0, -1]], side).tolist()
    if last - first <= _DENSE_ROWS:
        found = first + np.searchsorted(np.array(run[0, first:last]), keys, side)
    elif len(keys) <= _KEYS:
        found = _bounds(run, keys, side)
    else:
        found = np.concatenate([find(run, keys[at : at + _KEYS], side) for at in range(0, len(keys), _KEYS)])
    release(run)
    return found


def _bounds(run: np.ndarray, keys: np.ndarray, side: str) -> np.ndarray:
    """Bisect for all keys at once: the first pages that are looked at are the same for all."""
    low, high = np.zeros(len(keys), dtype=np.int64), np.full(len(keys), run.shape[1], dtype=np.int64)
    while (open_ := low < high).any():
        middle = (low + high) // 2
        value = run[0][np.minimum(middle, run.shape[1] - 1)]
        before = ((value < keys) if side == "left" else (value <= keys)) & open_
        low, high = np.where(before, middle + 1, low), np.where(open_ & ~before, middle, high)
    return low


def ranges(runs: Sequence[np.ndarray], most: int = MOST_ROWS) -> Iterator[np.ndarray]:
    """Yield the rows of all runs in consecutive ranges of keys, uint64 `[C, n]`, sorted by key; equal keys in order of the runs.

    Rows of one key are never apart. A range has about `most` rows, unless one key has more.
    """
    at = [0] * len(runs)
    while live := [number for number, run in enumerate(runs) if at[number] < run.shape[1]]:
        share = max(1, most // len(live))
        longer = [number for number in live if at[number] + share < runs[number].shape[1]]
        last = min((runs[number][0, at[number] + share - 1] for number in longer), default=None)
        parts = []
        for number in live:
            run, start = runs[number], at[number]
            stop = run.shape[1] if last is None else int(np.searchsorted(run[0], last, side="right"))
            parts.append(np.array(run[:, start:stop]))
            at[number] = stop
            release(run)
        rows = np.concatenate(parts, axis=1)
        yield rows[:, np.argsort(rows[0], kind="stable")] if len(parts) > 1 else rows


def merge_runs(folder: Path, kind: str, names: Sequence[str]) -> tuple[str, int]:
    """Write all rows of several runs as one run; return (file name, number of rows). The runs stay."""
    runs = [open_run(folder, name) for name in names]
    columns, total = runs[0].shape[0], sum(run.shape[1] for run in runs)
    name = f"{kind}-{uuid.uuid4().hex[:12]}.npy"
    with (folder / name).open("xb") as sink:
        start, done = _begin(sink, columns, total), 0
        for rows in ranges(runs):
            for column in range(columns):
                sink.seek(start + 8 * (column * total + done))
                sink.write(np.ascontiguousarray(rows[column], dtype="<u8").data)
            done += rows.shape[1]
        _finish(sink)
    fsync_path(folder)
    return name, total


def to_merge(sizes: Sequence[int]) -> int:
    """Return how many of the last runs are to be merged into one, so that each run is more than twice as long as the next.

    The number of runs is then the logarithm of their rows, and each row is rewritten as often at most.
    """
    total, count = sizes[-1] if sizes else 0, 1
    while count < len(sizes) and sizes[-count - 1] <= 2 * total:
        total += sizes[-count - 1]
        count += 1
    return count if count > 1 else 0


def _begin(sink: IO[bytes], columns: int, rows: int) -> int:
    """Write the header of a `.npy` file; return its length in bytes."""
    about = {"descr": "<u8", "fortran_order": False, "shape": (columns, rows)}
    np.lib.format.write_array_header_1_0(sink, about)
    return sink.tell()


def _finish(sink: IO[bytes]) -> None:
    sink.flush()
    os.fsync(sink.fileno())
