"""Shards: Arrow IPC files with the audio of a unit's segments, written once, with random access through a memory map.

Batches have 64 rows and uncompressed buffers. This gives 30,000 random rows per second; Parquet gives 60 to 300. A batch of FLAC
clips is far below the 2 GB that the 32-bit offsets of `binary` can address.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from catalogs.corpus.schema import INDEX, SEGMENTS, segments_schema

BATCH_ROWS = 64
_LIGHT = [name for name in SEGMENTS.names if name != "audio"]
_HEAVY = frozenset(SEGMENTS.names) - frozenset(INDEX.names)


def to_table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows as a table of `schema`; absent columns and NaN become null. Raises ValueError for an unknown column."""
    known = set(schema.names)
    cleaned = []
    for row in rows:
        unknown = set(row) - known
        if unknown:
            raise ValueError(f"no such column in the corpus format: {', '.join(sorted(unknown))}")
        cleaned.append({name: None if _is_nan(value) else value for name, value in row.items()})
    return pa.Table.from_pylist(cleaned, schema=schema)


def _is_nan(value: object) -> bool:
    return isinstance(value, float | np.floating) and math.isnan(value)


def write_shard(sink: IO[bytes], rows: Iterable[Mapping[str, Any]], fingerprint: str) -> None:
    """Write the segments that have audio as one Arrow IPC file.

    `rows` hold SEGMENTS columns; `audio` is the bytes of a FLAC file or a struct {bytes, path}.
    """
    schema = segments_schema(fingerprint)
    with pa.ipc.new_file(sink, schema) as writer:
        waiting = iter(rows)
        while part := [{**row, "audio": _audio(row)} for row in islice(waiting, BATCH_ROWS)]:
            writer.write_table(to_table(part, schema), max_chunksize=BATCH_ROWS)


def _audio(row: Mapping[str, Any]) -> dict[str, Any]:
    audio = row["audio"]
    if isinstance(audio, Mapping):
        return {"bytes": audio["bytes"], "path": audio.get("path") or f"{row['segment_id']}.flac"}
    return {"bytes": audio, "path": f"{row['segment_id']}.flac"}


def index_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the INDEX row of a segment: without audio, words and embedding. `row` is 0 if it has audio, see `place_rows`."""
    slim = {name: value for name, value in row.items() if name not in _HEAVY}
    return slim | {"row": 0} if has_audio(row) else slim


def place_rows(index: Iterable[dict[str, Any]], shard: str) -> int:
    """Set `shard` and `row` of the INDEX rows with audio, in the order of the shard. Return their number."""
    position = 0
    for row in index:
        if "row" in row:
            row |= {"shard": shard, "row": position}
            position += 1
    return position


def has_audio(row: Mapping[str, Any]) -> bool:
    """Return True if a segment row has audio; a segment that failed a hard rule has none."""
    audio = row.get("audio")
    return bool(audio.get("bytes") if isinstance(audio, Mapping) else audio)


class Shard:
    """One shard, memory-mapped. Cheap to open and safe to pickle: the receiving process opens the map again."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._reader: pa.RecordBatchFileReader | None = None
        self._batches: dict[int, pa.RecordBatch] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_reader": None, "_batches": {}}

    @property
    def reader(self) -> pa.RecordBatchFileReader:
        """The open Arrow reader over the memory map."""
        if self._reader is None:
            self._reader = pa.ipc.open_file(pa.memory_map(str(self.path)))
        return self._reader

    @property
    def schema(self) -> pa.Schema:
        """The schema with its metadata."""
        return self.reader.schema

    def __len__(self) -> int:
        count = self.reader.num_record_batches
        return (count - 1) * BATCH_ROWS + self._batch(count - 1).num_rows if count else 0

    def table(self) -> pa.Table:
        """Return all rows as a zero-copy table, with the columns that the shard was written with."""
        return self.reader.read_all()

    def _batch(self, number: int) -> pa.RecordBatch:
        if number not in self._batches:
            self._batches[number] = self.reader.get_batch(number)
        return self._batches[number]

    def _locate(self, row: int) -> tuple[pa.RecordBatch, int]:
        number, offset = divmod(row, BATCH_ROWS)
        if row < 0 or number >= self.reader.num_record_batches or offset >= self._batch(number).num_rows:
            raise IndexError(f"row {row} of {self.path}, which has {len(self)}")
        return self._batch(number), offset

    def row(self, row: int) -> dict[str, Any]:
        """Return one row as plain values, without the audio bytes."""
        batch, offset = self._locate(row)
        have = {name: batch.column(name)[offset].as_py() for name in batch.schema.names if name != "audio"}
        return dict.fromkeys(_LIGHT) | have

    def column(self, row: int, name: str) -> Any:
        """Return one value of one row; None if the shard was written before the column was added."""
        batch, offset = self._locate(row)
        return batch.column(name)[offset].as_py() if name in batch.schema.names or name not in SEGMENTS.names else None

    def values(self, row: int, name: str) -> np.ndarray | None:
        """Return a list of numbers of one row, `[N]`; None if it is null or the shard was written before the column was added."""
        batch, offset = self._locate(row)
        found = batch.column(name)[offset].values if name in batch.schema.names else None
        return None if found is None else found.to_numpy(zero_copy_only=False)

    def audio_buffer(self, row: int) -> pa.Buffer:
        """Return the encoded (FLAC) bytes of one row, as a view of the map without a copy."""
        batch, offset = self._locate(row)
        values = batch.column("audio").field("bytes")
        _, ends, data = values.buffers()
        # A scalar's as_buffer() would copy; reading the offsets directly gives a view.
        first, last = np.frombuffer(ends, dtype=np.int32)[values.offset + offset : values.offset + offset + 2]
        # Buffer.slice does not check its bounds: flipped bits in the offsets would read outside of the map.
        if not 0 <= first <= last <= data.size:
            raise ValueError(f"row {row} of {self.path} is said to end at byte {last} of {data.size}")
        return data.slice(int(first), int(last - first))

    def read_audio(self, row: int, start_s: float = 0.0, stop_s: float | None = None) -> tuple[np.ndarray, int]:
        """Return the mono samples of one row or of a part of it, `[S] float32` in -1..1, and the sample rate (Hz).

        start_s, stop_s: bounds of the part in seconds.
        """
        return decode(self.audio_buffer(row), start_s, stop_s)


def decode(
    data: pa.Buffer | bytes | memoryview, start_s: float = 0.0, stop_s: float | None = None
) -> tuple[np.ndarray, int]:
    """Decode a FLAC (or WAV, Ogg) clip, mixed to mono; return `[S] float32` in -1..1 and the rate in Hz."""
    import soundfile

    with soundfile.SoundFile(io.BytesIO(data)) as clip:
        rate = int(clip.samplerate)
        clip.seek(min(round(start_s * rate), clip.frames))
        frames = -1 if stop_s is None else max(round(stop_s * rate) - clip.tell(), 0)
        samples = clip.read(frames, dtype="float32", always_2d=True)
    return samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0], rate
