"""Write a synthetic corpus in the layout of `catalogs.corpus.commit`, without forcing every file to the disk.

Everything is as the pipeline leaves it (schemas, names, hashes, records), so that `voxmill fsck` finds no fault. What is not real:
the audio is one of 32 clips of 0.2 s whatever the duration says, and embeddings and fingerprints are drawn, not computed.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scale_parts.kinds import Kind
from scale_parts.passes import write_pass
from scale_parts.rows import FINGERPRINT, Block, block

from catalogs.corpus.commit import bind_fingerprint, create_corpus, record_path
from catalogs.corpus.ids import unit_id
from catalogs.corpus.schema import COMMITTED_COLUMNS, QUARANTINE, SCHEMA_VERSION, SEGMENTS, segments_schema
from catalogs.corpus.shards import BATCH_ROWS
from pipeline.stages import STAGE_NAMES

_BLOCK_ROWS = 20_000
_START = datetime(2026, 1, 1, tzinfo=UTC)
_STAGE_S = dict(zip(STAGE_NAMES, np.linspace(0.4, 9.0, len(STAGE_NAMES)).tolist(), strict=True))
_SHARD = segments_schema(FINGERPRINT)
_AUDIO = [name for name in SEGMENTS.names if name not in ("words", "embedding", "audio_print", "audio")]


def make_corpus(root: Path, kind: Kind, seed: int = 1, jobs: int = 1, log: Callable[[str], None] = print) -> None:
    """Make a corpus, or what is missing of one: units that have a record are left alone. jobs: number of processes."""
    create_corpus(root, name=kind.name)
    bind_fingerprint(root, FINGERPRINT)
    step = max(1, _BLOCK_ROWS // kind.rows)
    blocks = [(root, kind, first, min(step, kind.units - first), seed) for first in range(0, kind.units, step)]
    started, done = time.monotonic(), 0
    with ExitStack() as stack:
        pool = stack.enter_context(get_context("spawn").Pool(jobs)) if jobs > 1 else None
        for ids in pool.imap_unordered(_add, blocks) if pool else map(_add, blocks):
            done += len(ids)
            log(f"{kind.name}: {done:,} of {kind.units:,} units, {time.monotonic() - started:.0f} s")


def _add(given: tuple[Path, Kind, int, int, int]) -> list[str]:
    return add_units(*given)


def add_units(root: Path, kind: Kind, first: int, count: int, seed: int = 1) -> list[str]:
    """Write the units `first` to `first + count - 1`, whatever the size of the corpus; return their ids."""
    rows = block(kind, first, count, seed)
    found = []
    for at in range(count):
        recordings = rows.recordings.slice(at * kind.recordings, kind.recordings)
        unit = unit_id(_identity(recordings), FINGERPRINT)
        found.append(unit)
        if not record_path(root, unit).is_file():
            _write_unit(root, kind, rows, first, at, unit, seed)
    return found


def _identity(recordings: pa.Table) -> list[tuple[str, int, str]]:
    columns = (recordings.column(name).to_pylist() for name in ("source_id", "bytes", "content_sha256"))
    return list(zip(*columns, strict=True))


def _write_unit(root: Path, kind: Kind, rows: Block, first: int, at: int, unit: str, seed: int) -> None:
    index = rows.index.slice(at * kind.rows, kind.rows)
    heavy = rows.heavy.slice(at * kind.rows, kind.rows)
    recordings = rows.recordings.slice(at * kind.recordings, kind.recordings)
    a, b = np.searchsorted(rows.reference_unit, [at, at + 1]).tolist()
    has_audio = index.column("row").is_valid()
    files = []
    if pc.any(has_audio).as_py():
        shard = pa.table([*index.select(_AUDIO).columns, *heavy.columns], schema=SEGMENTS).filter(has_audio)
        files.append(_place(root, unit, "segments", "arrow", _ipc(shard)) | {"rows": shard.num_rows})
        names = pc.if_else(has_audio.combine_chunks(), files[0]["path"], pa.scalar(None, pa.string()))
        index = index.set_column(index.schema.get_field_index("shard"), index.schema.field("shard"), names)
    moment = _START + timedelta(seconds=first + at)
    tables = {
        "index": index,
        "recordings": recordings,
        "references": rows.references.slice(a, b - a),
        "quarantine": _quarantine(recordings, moment),
    }
    sessions = sorted(set(recordings.column("session_id").to_pylist()))
    counts = {"segments": pc.sum(has_audio).as_py()} | {name: table.num_rows for name, table in tables.items()}
    about = {
        "unit_id": unit,
        "fingerprint": FINGERPRINT,
        "generation": 0,
        "session_ids": sessions,
        "rows": {name: count for name, count in counts.items() if count},
    }
    for name, table in tables.items():
        if table.num_rows:
            data = _parquet(table.replace_schema_metadata({b"voxmill": json.dumps(about).encode()}))
            files.append(_place(root, unit, name, "parquet", data) | {"rows": table.num_rows})
    if (first + at) % kind.described == 0:
        kept = index.filter(pc.and_(index.column("kept"), has_audio))
        if kept.num_rows:
            write_pass(root, unit, kept, np.random.default_rng([seed, first + at, 1]))
    seconds = float(pc.sum(recordings.column("duration_s")).as_py())
    _link(
        root,
        {
            "schema_version": SCHEMA_VERSION,
            "columns": COMMITTED_COLUMNS,
            "unit_id": unit,
            "fingerprint": FINGERPRINT,
            "generation": 0,
            "session_ids": sessions,
            "source_ids": recordings.column("source_id").to_pylist(),
            "segments": index.num_rows,
            "seconds": seconds,
            "at": moment.isoformat(timespec="milliseconds"),
            "files": files,
            "stats": {"busy_s": {name: round(cost * seconds / 600, 3) for name, cost in _STAGE_S.items()}},
        },
    )


def _quarantine(recordings: pa.Table, moment: datetime) -> pa.Table:
    """Return a QUARANTINE row for each recording that cannot be decoded."""
    if "quarantined" not in recordings.column("status").to_pylist():
        return QUARANTINE.empty_table()
    lost = recordings.filter(pc.equal(recordings.column("status"), "quarantined"))
    rows = [
        {
            "path": path,
            "source_id": source,
            "stage": "decode",
            "error": "not an audio file",
            "attempts": 1,
            "at": moment,
            "cause": "data",
            "runs": 1,
            "version": "0.1.0",
        }
        for path, source in zip(*(lost.column(name).to_pylist() for name in ("path", "source_id")), strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=QUARANTINE)


def _ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, _SHARD) as writer:
        writer.write_table(table.replace_schema_metadata(_SHARD.metadata).combine_chunks(), max_chunksize=BATCH_ROWS)
    return bytes(memoryview(sink.getvalue()))


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(memoryview(sink.getvalue()))


def _place(root: Path, unit: str, kind: str, suffix: str, data: bytes) -> dict[str, Any]:
    sha = hashlib.sha256(data).hexdigest()
    relative = f"{kind}/{unit[:2]}/{unit}.{sha[:8]}.{suffix}"
    _put(root / relative, data)
    return {"kind": kind, "path": relative, "sha256": sha, "bytes": len(data)}


def _link(root: Path, record: dict[str, Any]) -> None:
    """Write the record last, whole or not at all, so that a killed run can be continued."""
    final = record_path(root, record["unit_id"])
    draft = root / "tmp" / f"{record['unit_id']}.json"
    _put(draft, json.dumps(record, indent=1, ensure_ascii=False).encode())
    final.parent.mkdir(parents=True, exist_ok=True)
    os.replace(draft, final)  # noqa: PTH105


def _put(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
