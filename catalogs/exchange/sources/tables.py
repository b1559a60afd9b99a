"""Tables with an audio column: Parquet files as the Hub has them, and folders that `datasets` wrote (`save_to_disk`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.exchange.sources import manifests
from catalogs.exchange.sources.row import LARGEST_BYTES, BadRow, Roots, Row, RowError, facts_of
from catalogs.files import one_line

_ROWS = 32
"""Rows in memory at a time."""


def files(path: Path) -> list[Path] | None:
    """Return the Parquet and Arrow files of a file or folder, in order of their names."""
    if path.is_file():
        return [path] if path.suffix.lower() in (".parquet", ".arrow") else None
    found = sorted(file for suffix in ("parquet", "arrow") for file in path.rglob(f"*.{suffix}"))
    # What `datasets` caches, and drafts, are hidden or below a hidden folder.
    return [
        f for f in found if not any(part.startswith(".") for part in f.relative_to(path).parts) and _is_current(f)
    ] or None


def _is_current(file: Path) -> bool:
    """Return True unless a state.json beside an Arrow file leaves it out: caches of `map` lie beside the data."""
    state = file.parent / "state.json"
    if file.suffix != ".arrow" or not state.is_file():
        return True
    try:
        named = json.loads(state.read_text(encoding="utf-8"))["_data_files"]
        return file.name in {one["filename"] for one in named}
    except (ValueError, KeyError, TypeError, OSError):
        return True


def rows(file: Path, roots: Roots) -> Iterator[Row | BadRow]:
    """Yield the rows of a table; damage ends it with one bad row."""
    place = 0
    try:
        for batch in _batches(file):
            for row in batch.to_pylist():
                place += 1
                name = f"{file.parent.name}/{file.name}#{place}"
                try:
                    yield _row(name, row, file.parent, roots)
                except RowError as error:
                    yield BadRow(name, str(error))
    except (pa.ArrowException, OSError) as error:
        yield BadRow(f"{file.name}#{place + 1}", f"the table is damaged from here ({one_line(error)[:300]})")


def _batches(file: Path) -> Iterator[pa.RecordBatch]:
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(file) as table:
            yield from table.iter_batches(batch_size=_ROWS)
        return
    with pa.memory_map(str(file)) as source:
        try:
            batches: Any = pa.ipc.open_stream(source)
        except pa.ArrowInvalid:
            whole = pa.ipc.open_file(source)
            batches = (whole.get_batch(number) for number in range(whole.num_record_batches))
        for batch in batches:
            for first in range(0, batch.num_rows, _ROWS):
                yield batch.slice(first, _ROWS)


def _row(name: str, row: Mapping[str, Any], folder: Path, roots: Roots) -> Row:
    held = next(
        (value for value in row.values() if isinstance(value, dict) and {"bytes", "path"} <= value.keys()), None
    )
    if held is None:
        return manifests.row_of(name, row, folder, roots)
    facts = facts_of({key: value for key, value in row.items() if value is not held})
    data, path = held["bytes"], held["path"]
    if data is not None:
        if len(data) > LARGEST_BYTES:
            raise RowError(f"its audio has {len(data) / 1e6:.0f} MB; clips have {LARGEST_BYTES / 1e6:.0f} at most")
        return Row(name, facts, lambda: bytes(data))
    if not isinstance(path, str) or not path:
        raise RowError("it holds neither audio nor a path")
    return Row(name, facts, partial(roots.read, path, folder))
