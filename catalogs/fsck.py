"""Proof that a corpus is whole: every file is there and unchanged, every id once, every second accounted for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.attempts import older_sources
from catalogs.commit import CorpusError, corpus_info, read_records, sweep_tmp
from catalogs.companions import latent_problems
from catalogs.locks import dead_scratch
from catalogs.models import file_sha256
from catalogs.schema import INDEX, QUARANTINE, RECORDINGS, REFERENCES, SEGMENTS, is_readable

_TOLERANCE_S = 0.05
_SCHEMAS = {"index": INDEX, "recordings": RECORDINGS, "references": REFERENCES, "quarantine": QUARANTINE}
_KINDS = ("segments", *_SCHEMAS)


@dataclass(frozen=True)
class Problem:
    """Something found by fsck. `severity`: `error` (the corpus is not whole) or `notice` (leftovers of a kill)."""

    severity: str
    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.path}: {self.what}"


def fsck(
    root: str | Path, hashes: bool = True, repair: bool = False, progress: Callable[[int, int], None] | None = None
) -> list[Problem]:
    """Check a corpus; an empty list (or only notices) means it is whole.

    `hashes=False` skips re-reading every byte. `repair` removes leftovers that no record names, and nothing else; run
    it only while no other process writes to the corpus. `progress` is called with (units done, units in all).
    """
    root = Path(root)
    corpus_info(root)
    try:
        records = list(read_records(root, superseded=True))
    except CorpusError as error:
        return [Problem("error", str(root / "units"), str(error))]
    problems: list[Problem] = []
    named: set[str] = set()
    segments: Counter[str] = Counter()
    sources: Counter[tuple[str, str]] = Counter()
    older = _older_sources(records)
    for done, record in enumerate(records):
        named.update(file["path"] for file in record["files"])
        problems += _check_unit(root, record, hashes, segments, sources, older.get(record["unit_id"], set()))
        if progress:
            progress(done + 1, len(records))
    problems += [
        Problem("error", f"segment {name}", f"occurs {count} times") for name, count in segments.items() if count > 1
    ]
    problems += [
        Problem("error", f"source {name}", f"was committed in {count} units: its segments occur more than once")
        for (name, _), count in sources.items()
        if count > 1
    ]
    problems += [Problem(*found) for found in latent_problems(root, segments.keys(), hashes)]
    strays = _strays(root, named)
    if repair:
        for path in strays:
            path.unlink()
        sweep_tmp(root)
    else:
        what = "no record names it (left by a run that was killed); voxmill fsck --repair removes it"
        problems += [Problem("notice", str(path.relative_to(root)), what) for path in strays]
    return problems


def _strays(root: Path, named: set[str]) -> list[Path]:
    found = []
    for kind in _KINDS:
        for path in sorted((root / kind).glob("*/*")):
            relative = path.relative_to(root).as_posix()
            if path.is_file() and relative not in named and not relative.startswith("quarantine/now/"):
                found.append(path)
    dead = (path for entry in dead_scratch(root / "tmp") for path in (entry, *entry.rglob("*")))
    return found + sorted(path for path in dead if path.is_file())


def _older_sources(records: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Of each unit: its sources that were processed again in a newer unit of the same settings."""
    by_settings: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        by_settings[record["fingerprint"]].append(record)
    return {
        unit: sources
        for group in by_settings.values()
        for unit, sources in older_sources(group, by_clock=False).items()
    }


def _check_unit(
    root: Path,
    record: dict[str, Any],
    hashes: bool,
    segments: Counter[str],
    sources: Counter[tuple[str, str]],
    older: set[str],
) -> list[Problem]:
    problems = []
    tables: dict[str, pa.Table] = {}
    for file in record["files"]:
        path = root / file["path"]
        if not path.is_file():
            problems.append(Problem("error", file["path"], "is missing; restore it or run prepare again"))
            continue
        if path.stat().st_size != file["bytes"]:
            problems.append(Problem("error", file["path"], f"has {path.stat().st_size} bytes, not {file['bytes']}"))
            continue
        if hashes and file_sha256(path) != file["sha256"]:
            problems.append(Problem("error", file["path"], "has changed since it was committed (sha256 differs)"))
            continue
        try:
            table = _read(path, file["kind"])
        except (pa.ArrowException, OSError) as error:
            problems.append(Problem("error", file["path"], f"cannot be read: {' '.join(str(error).split())}"))
            continue
        if table.num_rows != file["rows"]:
            problems.append(Problem("error", file["path"], f"has {table.num_rows} rows, not {file['rows']}"))
        expected = SEGMENTS if file["kind"] == "segments" else _SCHEMAS[file["kind"]]
        if file["kind"] != "segments" and not is_readable(table.schema, expected):
            problems.append(Problem("error", file["path"], "does not have the columns of this corpus format"))
            continue
        tables[file["kind"]] = table
    index = tables.get("index", INDEX.empty_table())
    for segment, source in zip(*(index.column(name).to_pylist() for name in ("segment_id", "source_id")), strict=True):
        segments[segment] += source not in older
    recordings = tables.get("recordings", RECORDINGS.empty_table())
    # Units of older settings may hold the same recordings: they are superseded, not doubled.
    committed = (source for source in recordings.column("source_id").to_pylist() if source not in older)
    sources.update((source, record["fingerprint"]) for source in committed)
    if index.num_rows != record["segments"] and not problems:
        problems.append(Problem("error", f"unit {record['unit_id']}", f"has {index.num_rows} segments in its index"))
    return problems + _check_audio(record, index, tables.get("segments")) + _check_seconds(index, recordings)


def _read(path: Path, kind: str) -> pa.Table:
    import pyarrow.parquet as pq

    if kind != "segments":
        return pq.ParquetFile(path).read()
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    missing = set(SEGMENTS.names) - set(table.schema.names)
    if missing:
        raise pa.ArrowInvalid(f"columns missing: {', '.join(sorted(missing))}")
    return table.select(["segment_id"])


def _check_audio(record: dict[str, Any], index: pa.Table, shard: pa.Table | None) -> list[Problem]:
    """Every index row that points at audio points at its own row of the shard."""
    names = [file["path"] for file in record["files"] if file["kind"] == "segments"]
    ids = shard.column("segment_id").to_pylist() if shard is not None else []
    pointed = 0
    problems = []
    rows = zip(*(index.column(name).to_pylist() for name in ("segment_id", "shard", "row")), strict=True)
    for segment, shard_name, row in rows:
        if shard_name is None:
            continue
        pointed += 1
        if shard is not None and (shard_name not in names or row >= len(ids) or ids[row] != segment):
            problems.append(Problem("error", f"segment {segment}", f"is not at row {row} of {shard_name}"))
    if shard is not None and pointed != len(ids) and not problems:
        problems.append(Problem("error", names[0], f"holds {len(ids)} clips but the index points at {pointed}"))
    return problems


def _check_seconds(index: pa.Table, recordings: pa.Table) -> list[Problem]:
    """duration_s = silence_s + the sum of the recording's segments; quarantined recordings have no such account."""
    spoken: dict[str, float] = defaultdict(float)
    for source, duration in zip(
        index.column("source_id").to_pylist(), index.column("duration_s").to_pylist(), strict=True
    ):
        spoken[source] += duration or 0.0
    problems = []
    for row in recordings.select(["source_id", "path", "duration_s", "silence_s", "status"]).to_pylist():
        if row["status"] == "quarantined":
            continue
        account = (row["silence_s"] or 0.0) + spoken[row["source_id"]]
        lost = (row["duration_s"] or 0.0) - account
        if abs(lost) > _TOLERANCE_S:
            what = f"{lost:+.2f} s of {row['duration_s']:.2f} s are in neither a segment nor silence"
            problems.append(Problem("error", row["path"] or row["source_id"], what))
    known = set(recordings.column("source_id").to_pylist())
    problems += [
        Problem("error", f"source {source}", "has segments but no recording")
        for source in spoken
        if source not in known
    ]
    return problems
