"""Erasing from committed units: their files are written again without what is forgotten, and their records replaced.

The new files are beside the old ones until the record is replaced, in one step. Then readers use them. The old ones are removed at
the end. A kill at any point leaves a unit with its old record or its new one, and the next run does the rest. The new files depend
only on the old ones and on the tombstones, so that a killed run ends with the same bytes as an unbroken one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalogs.corpus.commit import place_file, read_records, record_path, replace_record
from catalogs.corpus.damage import reading
from catalogs.corpus.latents import LatentForm, latent_files, write_latents
from catalogs.corpus.locks import own_scratch
from catalogs.corpus.row_files import write_rows
from catalogs.corpus.shards import BATCH_ROWS
from catalogs.corpus.tombstones import Tombstone
from catalogs.corpus.unit_checks import KINDS
from catalogs.files import fsync_path

TABLES = ("index", "recordings", "references", "quarantine")


@dataclass(frozen=True)
class Gone:
    """What is to be erased: all standing tombstones together."""

    sources: frozenset[str] = frozenset()
    partial: frozenset[str] = frozenset()
    segments: frozenset[str] = frozenset()
    units: frozenset[str] = frozenset()
    contents: frozenset[str] = frozenset()
    ids: pa.Array = field(default_factory=lambda: pa.array([], pa.string()))
    """`segments` as an Arrow array."""

    @classmethod
    def of(cls, tombstones: list[Tombstone]) -> Gone:
        """Return what some tombstones name."""

        def joined(name: str) -> frozenset[str]:
            return frozenset(value for found in tombstones for value in getattr(found, name))

        segments = joined("segment_ids")
        ids = pa.array(sorted(segments), pa.string())
        return cls(
            joined("source_ids"), joined("partial_ids"), segments, joined("units"), joined("content_sha256"), ids
        )

    def stays(self, table: pa.Table, older: frozenset[str]) -> pa.ChunkedArray:
        """Return bool `[rows]`: True for rows of a unit that stay. older: sources of the unit that a newer unit holds. Of those
        that are forgotten in part, no row stays: nothing reads them, and their segments may have other ids."""
        gone = _names(table, "segment_id", self.ids)
        gone = pc.or_(gone, _names(table, "reference_id", self.ids))
        sources = self.sources | (self.partial & older)
        return pc.invert(pc.or_(gone, _names(table, "source_id", pa.array(sorted(sources), pa.string()))))


def erase_units(root: Path, gone: Gone) -> None:
    """Erase from all committed units, then remove the files that no record names any more. The caller holds the run lock."""
    newest = {record["unit_id"]: frozenset(record.get("superseded", ())) for record in read_records(root)}
    for record in read_records(root, superseded=True):
        if record["unit_id"] in gone.units:
            # `superseded` has the forgotten sources, too: their rows do not stay in any case.
            older = newest.get(record["unit_id"], frozenset(record["source_ids"])) - gone.sources
            _erase_unit(root, record, older, gone)
    for unit in sorted(gone.units):
        _sweep(root, unit)


def _erase_unit(root: Path, record: dict[str, Any], older: frozenset[str], gone: Gone) -> None:
    tables = {file["kind"]: _read(root / file["path"]) for file in record["files"] if file["kind"] in TABLES}
    stays = {kind: gone.stays(table, older) for kind, table in tables.items()}
    if "segments" in {file["kind"] for file in record["files"]} and "index" not in tables:
        return  # Damaged beyond what a commit leaves: fsck names it.
    if all(pc.all(mask).as_py() in (True, None) for mask in stays.values()):
        return
    left = {kind: table.filter(stays[kind]) for kind, table in tables.items()}
    if "recordings" not in left or not left["recordings"].num_rows:
        record_path(root, record["unit_id"]).unlink()
        fsync_path(record_path(root, record["unit_id"]).parent)
        return
    left["recordings"] = _with_silence(left["recordings"], tables.get("index"), left.get("index"))
    new = _written(root, record, left)
    _move_latents(root, record, new, gone)
    replace_record(root, new)


def _written(root: Path, record: Mapping[str, Any], left: dict[str, pa.Table]) -> dict[str, Any]:
    """Write the files of a unit again with the rows that are left; return the record that names them."""
    unit, files = record["unit_id"], []
    with own_scratch(root / "tmp") as scratch:
        index = left.get("index")
        if index is not None and pc.any(pc.is_valid(index.column("shard"))).as_py():
            wanted = set(index.filter(pc.is_valid(index.column("shard"))).column("segment_id").to_pylist())
            shard = next(file["path"] for file in record["files"] if file["kind"] == "segments")
            entry = place_file(root, unit, "segments", "arrow", scratch, lambda sink: _copy(root / shard, wanted, sink))
            files.append(entry | {"rows": len(wanted)})
            left["index"] = _placed(index, entry["path"])
        rows = {file["kind"]: file["rows"] for file in files}
        rows |= {kind: table.num_rows for kind, table in left.items() if table.num_rows}
        sessions = list(dict.fromkeys(left["recordings"].column("session_id").to_pylist()))
        for kind in TABLES:
            table = left.get(kind)
            if table is not None and table.num_rows:
                write = _writer(_told(table, rows, sessions))
                entry = place_file(root, unit, kind, "parquet", scratch, write)
                files.append(entry | {"rows": table.num_rows})
    recordings = left["recordings"]
    return dict(record) | {
        "session_ids": sessions,
        "source_ids": recordings.column("source_id").to_pylist(),
        "segments": left["index"].num_rows if "index" in left else 0,
        "seconds": float(pc.sum(recordings.column("duration_s")).as_py() or 0.0),
        "files": files,
    }


def _writer(table: pa.Table) -> Callable[[IO[bytes]], object]:
    return lambda sink: write_rows(table, sink)


def _copy(shard: Path, wanted: set[str], sink: Any) -> None:
    """Write the wanted rows of a shard, in batches as a shard has them."""
    with reading(shard):
        reader = pa.ipc.open_file(pa.memory_map(str(shard)))
    with pa.ipc.new_file(sink, reader.schema) as writer:
        for table in _batches(reader, pa.array(sorted(wanted), pa.string())):
            writer.write_table(table, max_chunksize=BATCH_ROWS)


def _batches(reader: pa.RecordBatchFileReader, wanted: pa.Array) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    for number in range(reader.num_record_batches):
        table = pa.Table.from_batches([reader.get_batch(number)])
        waiting.append(table.filter(pc.is_in(table.column("segment_id"), wanted)))
        held = pa.concat_tables(waiting)
        while held.num_rows >= BATCH_ROWS:
            yield held.slice(0, BATCH_ROWS).combine_chunks()
            held = held.slice(BATCH_ROWS)
        waiting = [held]
    if waiting and waiting[0].num_rows:
        yield waiting[0].combine_chunks()


def _placed(index: pa.Table, shard: str) -> pa.Table:
    """Return the index with the places of the clips in a shard that holds them in this order."""
    has_audio = index.column("shard").is_valid().to_numpy()
    rows = np.cumsum(has_audio) - 1
    columns = {
        "shard": pa.array([shard if there else None for there in has_audio], index.schema.field("shard").type),
        "row": pa.array(rows, index.schema.field("row").type, mask=~has_audio),
    }
    for name, values in columns.items():
        index = index.set_column(index.schema.get_field_index(name), index.schema.field(name), values)
    return index


def _with_silence(recordings: pa.Table, before: pa.Table | None, after: pa.Table | None) -> pa.Table:
    """Return the recordings with the time of erased segments counted as silence: every second stays accounted for."""
    if before is None:
        return recordings
    lost = _seconds(before)
    for source, seconds in _seconds(after).items() if after is not None else ():
        lost[source] -= seconds
    pairs = zip(
        *(recordings.column(name).to_pylist() for name in ("source_id", "silence_s", "duration_s")), strict=True
    )
    # Nothing that stays as it was is computed again: a sum of rounded numbers may be another number.
    silence = [
        min(own + lost[s], of or own) if own is not None and lost.get(s, 0.0) > 1e-9 else own for s, own, of in pairs
    ]
    at = recordings.schema.get_field_index("silence_s")
    return recordings.set_column(at, recordings.schema.field(at), pa.array(silence, pa.float64()))


def _seconds(index: pa.Table) -> dict[str, float]:
    found: dict[str, float] = {}
    for source, seconds in zip(*(index.column(n).to_pylist() for n in ("source_id", "duration_s")), strict=True):
        found[source] = found.get(source, 0.0) + (seconds or 0.0)
    return found


def _told(table: pa.Table, rows: Mapping[str, int], sessions: list[str]) -> pa.Table:
    """Return the table with the metadata of its unit, from which a lost record is rebuilt."""
    metadata = dict(table.schema.metadata or {})
    if b"voxmill" in metadata:
        about = json.loads(metadata[b"voxmill"]) | {"rows": dict(rows), "session_ids": sessions}
        metadata[b"voxmill"] = json.dumps(about, ensure_ascii=False).encode()
    return table.replace_schema_metadata(metadata or None)


def _move_latents(root: Path, old: Mapping[str, Any], new: Mapping[str, Any], gone: Gone) -> None:
    """Write the latents of the segments that stay for the unit's new shard. Those of the old one count until the record changes."""
    shards = {file["kind"]: file["path"] for file in new["files"]}
    before = {file["path"] for file in old["files"]}
    for path in _latents_of(root, old["unit_id"]):
        table, about = _opened(path)
        if "segments" not in shards or about.get("shard") not in (None, *before):
            continue
        stay = table.filter(pc.invert(pc.is_in(table.column("segment_id"), gone.ids)))
        form = LatentForm(about["codec"], about["patch_size"], about["feat_dim"])
        shape = (-1, form.patch_size, form.feat_dim)
        rows = [
            (row["segment_id"], np.frombuffer(row["latents"], "<u2").reshape(shape).astype(np.uint16))
            for row in stay.to_pylist()
        ]
        if rows:
            write_latents(root, form, shards["segments"], rows)


def _sweep(root: Path, unit: str) -> None:
    """Remove the files and latents of a unit that its record does not name."""
    path = record_path(root, unit)
    named = (
        {file["path"] for file in json.loads(path.read_text(encoding="utf-8"))["files"]} if path.is_file() else set()
    )
    for kind in KINDS:
        for file in (root / kind / unit[:2]).glob(f"{unit}.*"):
            if file.relative_to(root).as_posix() not in named:
                file.unlink()
    for file in _latents_of(root, unit):
        if _opened(file)[1].get("shard") not in named:
            file.unlink()


def _latents_of(root: Path, unit: str) -> list[Path]:
    return [path for path in latent_files(root) if path.name.startswith(f"{unit}.")]


def _opened(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    with reading(path):
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        return table, json.loads(table.schema.metadata[b"voxmill"])


def _read(path: Path) -> pa.Table:
    with reading(path), pq.ParquetFile(path) as file:
        return file.read()


def _names(table: pa.Table, column: str, ids: pa.Array) -> pa.ChunkedArray | pa.Scalar:
    if column not in table.schema.names:
        return pa.scalar(False)
    return pc.is_in(table.column(column), ids)
