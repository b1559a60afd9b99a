"""A unit as bytes: rendered from the rows of a block, or the same unit under other ids."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scale_parts.kinds import Kind
from scale_parts.passes import pass_tables
from scale_parts.rows import FINGERPRINT, Block

from catalogs.corpus.ids import short_hash, unit_id
from catalogs.corpus.row_files import parquet_bytes
from catalogs.corpus.schema import COMMITTED_COLUMNS, QUARANTINE, SCHEMA_VERSION, SEGMENTS, segments_schema
from catalogs.corpus.shards import BATCH_ROWS
from pipeline.stages import STAGE_NAMES

_SHARD = segments_schema(FINGERPRINT)
_AUDIO = [name for name in SEGMENTS.names if name not in ("words", "embedding", "audio_print", "audio")]
_START = datetime(2026, 1, 1, tzinfo=UTC)
_STAGE_S = dict(zip(STAGE_NAMES, np.linspace(0.4, 9.0, len(STAGE_NAMES)).tolist(), strict=True))
"""Busy seconds of each stage for ten minutes of recordings."""
_Identity = list[tuple[str, int, str]]
"""(source id, bytes, sha256) of each recording of a unit."""


@dataclass(frozen=True)
class File:
    """A file that a record names."""

    kind: str
    path: str
    rows: int
    data: bytes

    @property
    def entry(self) -> dict[str, Any]:
        """The file as the record has it."""
        sha = hashlib.sha256(self.data).hexdigest()
        return {"kind": self.kind, "path": self.path, "sha256": sha, "bytes": len(self.data), "rows": self.rows}


@dataclass(frozen=True)
class Unit:
    """A unit of the corpus: `number` counts from 0, `beside` are the files of the pass by path, `ids` all other ids in it."""

    number: int
    identity: _Identity
    sessions: list[str]
    segments: int
    seconds: float
    files: list[File]
    beside: dict[str, bytes]
    ids: list[str]

    @property
    def unit_id(self) -> str:
        """Id of the unit."""
        return unit_id(self.identity, FINGERPRINT)

    @property
    def record(self) -> bytes:
        """The commit record."""
        busy = {name: round(cost * self.seconds / 600, 3) for name, cost in _STAGE_S.items()}
        about = {
            "schema_version": SCHEMA_VERSION,
            "columns": COMMITTED_COLUMNS,
            "unit_id": self.unit_id,
            "fingerprint": FINGERPRINT,
            "generation": 0,
            "session_ids": self.sessions,
            "source_ids": [source for source, _, _ in self.identity],
            "segments": self.segments,
            "seconds": self.seconds,
            "at": _moment(self.number).isoformat(timespec="milliseconds"),
            "files": [file.entry for file in self.files],
            "stats": {"busy_s": busy},
        }
        return json.dumps(about, indent=1, ensure_ascii=False).encode()


def render(kind: Kind, rows: Block, first: int, at: int, seed: int) -> Unit:
    """Return the unit at place `at` of a block that starts with unit `first`."""
    recordings = rows.recordings.slice(at * kind.recordings, kind.recordings)
    index = rows.index.slice(at * kind.rows, kind.rows)
    identity, number = identity_of(recordings), first + at
    unit = unit_id(identity, FINGERPRINT)
    has_audio = index.column("row").is_valid()
    files = []
    if pc.any(has_audio).as_py():
        heavy = rows.heavy.slice(at * kind.rows, kind.rows)
        shard = pa.table([*index.select(_AUDIO).columns, *heavy.columns], schema=SEGMENTS).filter(has_audio)
        files.append(_file(unit, "segments", shard.num_rows, _ipc(shard)))
        names = pc.if_else(has_audio.combine_chunks(), files[0].path, pa.scalar(None, pa.string()))
        index = index.set_column(index.schema.get_field_index("shard"), index.schema.field("shard"), names)
    a, b = np.searchsorted(rows.reference_unit, [at, at + 1]).tolist()
    tables = {
        "index": index,
        "recordings": recordings,
        "references": rows.references.slice(a, b - a),
        "quarantine": _quarantine(recordings, _moment(number)),
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
            told = table.replace_schema_metadata({b"voxmill": json.dumps(about).encode()})
            files.append(_file(unit, name, table.num_rows, _parquet(told, bool(kind.drawn))))
    kept = index.filter(pc.and_(index.column("kept"), has_audio))
    described = number % kind.described == 0 and kept.num_rows
    passes = pass_tables(unit, kept, np.random.default_rng([seed, number, 1])) if described else {}
    segments = index.column("segment_id").to_pylist()
    ids = [*sessions, *(source for source, _, _ in identity), *(sha[:16] for _, _, sha in identity), *segments]
    ids += [sha[:16] for sha in index.column("audio_sha256").to_pylist() if sha]
    return Unit(
        number,
        identity,
        sessions,
        index.num_rows,
        float(pc.sum(recordings.column("duration_s")).as_py()),
        files,
        {path: _parquet(table, bool(kind.drawn)) for path, table in passes.items()},
        list(dict.fromkeys(ids)),
    )


def renamed(unit: Unit, number: int) -> Unit:
    """Return a unit under another number: the same rows with other ids and other folders of its recordings.

    The ids are replaced in the bytes of the files, which must hold them plainly: neither compressed nor with bounds of columns.
    """
    new = {old: short_hash("copy", number, old) for old in unit.ids}
    words = {old.encode(): name.encode() for old, name in new.items()}
    words[f"talks/{unit.number:06d}-".encode()] = f"talks/{number:06d}-".encode()
    identity = [(new[source], size, new[sha[:16]] * 4) for source, size, sha in unit.identity]
    own = unit_id(identity, FINGERPRINT)
    words[unit.unit_id.encode()] = own.encode()
    files: list[File] = []
    for file in unit.files:
        data = _replaced(file.data, words.items())
        files.append(_file(own, file.kind, file.rows, data))
        # The rows of the index name the shard, whose name has the hash of its bytes.
        words[file.path.replace(unit.unit_id, own).encode()] = files[-1].path.encode()
    beside = {
        path.replace(f"/{unit.unit_id[:2]}/{unit.unit_id}", f"/{own[:2]}/{own}"): _replaced(data, words.items())
        for path, data in unit.beside.items()
    }
    sessions = sorted(new[session] for session in unit.sessions)
    return replace(
        unit, number=number, identity=identity, sessions=sessions, files=files, beside=beside, ids=[*new.values()]
    )


def _replaced(data: bytes, words: Iterable[tuple[bytes, bytes]]) -> bytes:
    for old, new in words:
        data = data.replace(old, new)
    return data


def identity_of(recordings: pa.Table) -> _Identity:
    """Return what the id of a unit is made from."""
    columns = (recordings.column(name).to_pylist() for name in ("source_id", "bytes", "content_sha256"))
    return list(zip(*columns, strict=True))


def _moment(number: int) -> datetime:
    """Return the time at which a unit was committed."""
    return _START + timedelta(seconds=number)


def _file(unit: str, kind: str, rows: int, data: bytes) -> File:
    suffix = "arrow" if kind == "segments" else "parquet"
    return File(kind, f"{kind}/{unit[:2]}/{unit}.{hashlib.sha256(data).hexdigest()[:8]}.{suffix}", rows, data)


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


def _parquet(table: pa.Table, plain: bool) -> bytes:
    """Return a table as the pipeline writes it; `plain`: so that `renamed` may put other ids into it."""
    if not plain:
        return parquet_bytes(table)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="none", use_dictionary=False, write_statistics=False, store_schema=False)
    return bytes(memoryview(sink.getvalue()))
