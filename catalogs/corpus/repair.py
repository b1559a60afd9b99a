"""`fsck --repair`. It deletes only duplicates of committed files.

corpus.json is rebuilt from the commit records, a lost record from its files, an index from its shard. Any other damaged unit
becomes uncommitted: its record moves to damaged/units/, and the same prepare command processes exactly its sources again. This is
done only if all of its sources still exist.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.corpus.commit import commit_record, corpus_info, record_path, sweep_tmp, write_in_corpus
from catalogs.corpus.history import read_hashes
from catalogs.corpus.ids import other_channel_id, source_id
from catalogs.corpus.locks import dead_scratch, own_scratch
from catalogs.corpus.row_files import earlier_bytes, parquet_bytes
from catalogs.corpus.schema import INDEX, SCHEMA_VERSION
from catalogs.corpus.unit_checks import Problem, read_file
from catalogs.corpus.unnamed import Findings, aside_folder, aside_records, is_redone, listings
from catalogs.files import file_sha256
from catalogs.settings import SettingsError, read_yaml

COMPACT = "compact"
"""Folder of the compacted copies."""


def mend(root: Path, found: Findings) -> list[Problem]:
    """Repair what can be repaired; return what was done and what is left."""
    if found.records.broken or found.unnamed.lost or found.damaged:
        drop_compaction(root)
    done = list(found.problems) + found.unnamed.notices
    lost = {record["unit_id"]: record for record in found.unnamed.lost}
    for path, problem in found.records.broken.items():
        done.append(_broken_record(root, path, problem, path.stem in lost))
    for record in lost.values():
        commit_record(root, record)
        done.append(Problem("repaired", f"unit {record['unit_id']}", "its commit record was rebuilt from its files"))
    for unit, faults in found.damaged.items():
        if (damaged := found.records.get(unit)) is not None:
            done += _mend_unit(root, damaged, faults)
    for problem in found.companions:
        _set_aside(root, root / problem.path)
        done.append(Problem("repaired", problem.path, f"{problem.what}; moved to damaged/, its command makes it again"))
    return done + _remove_doubles(root, found)


def drop_compaction(root: Path) -> None:
    """Remove the compacted copies of a corpus (`catalogs.compaction`), at once for readers: they are made again from the units.

    They take a unit of the same id for unchanged, so this comes before the repair of one.
    """
    if (root / COMPACT).is_dir():
        with own_scratch(root / "tmp") as scratch:
            os.replace(root / COMPACT, scratch / COMPACT)  # noqa: PTH105 - nobody sees half of it


def rebuild_info(root: Path) -> Problem:
    """Write corpus.json again, with format and fingerprint of the newest commit record and the date of the oldest."""
    records = []
    for path in (root / "units").glob("*/*.json"):
        with suppress(ValueError):
            records.append(json.loads(path.read_text(encoding="utf-8")))
    records.sort(key=lambda record: str(record["at"]))
    newest = records[-1] if records else {"schema_version": SCHEMA_VERSION}
    info = {"name": _prepared_name(root) or root.resolve().name, "schema_version": newest["schema_version"]}
    info |= {"license": None, "created_at": records[0]["at"] if records else datetime.now(UTC).isoformat()}
    info |= {"fingerprint": newest["fingerprint"]} if records else {}
    if (root / "corpus.json").exists():
        _set_aside(root, root / "corpus.json")
    write_in_corpus(root, root / "corpus.json", json.dumps(info, indent=2, ensure_ascii=False).encode())
    return Problem("repaired", "corpus.json", "it was damaged or missing, and written again from the commit records")


def _prepared_name(root: Path) -> str | None:
    """Return the name of the corpus from the settings of its last run, or None."""
    try:
        return str(read_yaml(root / "prepare.yaml").get("name") or "") or None
    except (SettingsError, OSError):
        return None


def _broken_record(root: Path, path: Path, problem: Problem, rebuilt: bool) -> Problem:
    if not rebuilt:
        what = (
            f"{problem.what}, and its files are not whole: move it to damaged/units/ and run the same prepare command, which"
            " processes its recordings again"
        )
        return Problem("error", problem.path, what)
    _set_aside(root, path)
    return Problem("repaired", problem.path, f"{problem.what}; it was moved to damaged/")


def _mend_unit(root: Path, record: dict[str, Any], faults: list[Problem]) -> list[Problem]:
    if record["fingerprint"] != (corpus_info(root).get("fingerprint") or record["fingerprint"]):
        return [
            Problem("notice", p.path, f"{p.what}; of settings that --redo has replaced: nothing reads it")
            for p in faults
        ]
    if [problem.path.split("/")[0] for problem in faults] == ["index"] and _rebuild_index(root, record):
        return [Problem("repaired", faults[0].path, f"{faults[0].what}; it was rebuilt from the unit's shard")]
    gone = _gone_sources(root, record)
    if gone:
        path = record_path(root, record["unit_id"]).relative_to(root)
        what = (
            f"it stays as it is, for {len(gone)} of its {len(record['source_ids'])} recordings are gone and cannot be processed"
            f" again (e.g. {gone[0]}): bring them back and repair again, or move {path} to damaged/units/ to continue without them"
        )
        return [Problem("error", p.path, f"{p.what}; {what}") for p in faults]
    aside = aside_folder(root) / "units" / f"{record['unit_id']}.json"
    aside.parent.mkdir(parents=True, exist_ok=True)
    os.replace(record_path(root, record["unit_id"]), aside)  # noqa: PTH105 - the one step that takes the unit off
    what = f"the unit's {len(record['source_ids'])} recordings are now uncommitted: run the same prepare command to redo them"
    return [Problem("repaired", p.path, f"{p.what}; {what}") for p in faults]


def _rebuild_index(root: Path, record: dict[str, Any]) -> bool:
    """Rebuild the index from the shard. Return False, with nothing written, if a segment has no audio or the sha256 differs."""
    shard = next((file for file in record["files"] if file["kind"] == "segments"), None)
    entry = next(file for file in record["files"] if file["kind"] == "index")
    if shard is None or shard["rows"] != record["segments"]:
        return False
    table = pa.ipc.open_file(pa.memory_map(str(root / shard["path"]))).read_all()
    # A shard written before a column was added lacks it, and so does its index.
    columns = {name: table.column(name) for name in INDEX.names if name in table.schema.names}
    columns |= {"shard": pa.array([shard["path"]] * table.num_rows), "row": pa.array(range(table.num_rows), pa.int32())}
    schema = pa.schema([INDEX.field(name) for name in columns], metadata=_metadata(root, record))
    rebuilt = pa.table(list(columns.values()), schema=schema)
    for data in (parquet_bytes(rebuilt), earlier_bytes(rebuilt)):
        if hashlib.sha256(data).hexdigest() == entry["sha256"]:
            write_in_corpus(root, root / entry["path"], data)
            return True
    return False


def _metadata(root: Path, record: dict[str, Any]) -> dict[bytes, bytes]:
    """Return the unit's metadata from its other Parquet files. The index had the same metadata."""
    for file in record["files"]:
        if file["kind"] in ("recordings", "references", "quarantine"):
            found = (read_file(root / file["path"], file["kind"]).schema.metadata or {}).get(b"voxmill")
            return {b"voxmill": found} if found else {}
    return {}


def _gone_sources(root: Path, record: dict[str, Any]) -> list[str]:
    """Return the recordings of a unit that are missing from their paths, or whose paths are not known."""
    known: dict[str, dict[str, Any]] = {}
    for file in record["files"]:
        if file["kind"] == "recordings":
            try:
                known = {row["source_id"]: row for row in read_file(root / file["path"], "recordings").to_pylist()}
            except (pa.ArrowException, OSError):
                known = _from_hashes(root, record["source_ids"])
    gone = []
    for source in record["source_ids"]:
        row = known.get(source)
        if row is None:
            gone.append(f"source {source}, whose place was in the damaged list of recordings")
        elif not _is_there(row):
            gone.append(row["path"])
    return gone


def _from_hashes(root: Path, wanted: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return path, size and sha256 of the wanted sources, found in the hashes that the runs noted.

    A source's id is made from the end of its path and its sha256, so every end of every path is tried.
    """
    ids, found = set(wanted), {}
    for path, size, _, sha256 in read_hashes(root):
        inner, _, outer = path.partition("::")
        parts = [*outer.split("/"), *inner.rpartition("://")[2].split("/")] if outer else path.split("/")
        for start in range(len(parts)):
            source = source_id("/".join(parts[start:]), sha256)
            for name in {source, other_channel_id(source)} & ids:
                found[name] = {"path": path, "bytes": size, "content_sha256": sha256}
    return found


def _is_there(row: Mapping[str, Any]) -> bool:
    """Return True if a recording can be processed again. A URL is assumed to exist."""
    _, chained, outer = row["path"].rpartition("::")
    place = outer.removeprefix("file://").removeprefix("local://")
    if "://" in place:
        return True
    path = Path(place)
    if chained or not path.exists():
        # The recording is in a container: the archive or table must exist.
        return any(above.is_file() for above in (path, *path.parents))
    return path.is_file() and path.stat().st_size == row["bytes"] and file_sha256(path) == row["content_sha256"]


def _set_aside(root: Path, path: Path) -> None:
    final = aside_folder(root) / path.relative_to(root)
    final.parent.mkdir(parents=True, exist_ok=True)
    os.replace(path, final)  # noqa: PTH105


def _remove_doubles(root: Path, found: Findings) -> list[Problem]:
    aside = aside_records(root)
    if aside:
        # Records that this repair has just set aside are gone, and do not count.
        listed = listings(found.records, {source for record in aside.values() for source in record["source_ids"]})
        for unit, record in aside.items():
            if is_redone(record, listed):
                (aside_folder(root) / "units" / f"{unit}.json").unlink()
    removed = [str(path.relative_to(root)) for path in (*found.unnamed.doubles, *dead_scratch(root / "tmp"))]
    for path in found.unnamed.doubles:
        path.unlink()
    sweep_tmp(root)
    return [Problem("repaired", name, "was left by a run that was killed, and removed") for name in removed]
