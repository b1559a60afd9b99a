"""The findings of `fsck`. Among them are files that no commit record names: files of a lost record, duplicates of committed files,
or unfinished units."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.corpus.ids import unit_id
from catalogs.corpus.schema import COMMITTED_COLUMNS, INDEX, SCHEMA_VERSION, SCHEMAS
from catalogs.corpus.tombstones import read_tombstones
from catalogs.corpus.unit_checks import KINDS, Problem, check_audio, check_seconds, read_file
from catalogs.files import file_sha256

Listings = dict[str, set[tuple[str, int]]]
_NAME = re.compile(r"([0-9a-f]+)\.([0-9a-f]{8})\.(arrow|parquet)")


@dataclass
class Unnamed:
    """The files that no record names, sorted by what may be done with them."""

    lost: list[dict[str, Any]] = field(default_factory=list)
    """Rebuilt records of units whose files are whole and whose sources no record lists."""
    doubles: list[Path] = field(default_factory=list)
    """Files whose sources are all committed: they may be removed."""
    notices: list[Problem] = field(default_factory=list)
    """Files that stay, with the reason."""


@dataclass
class _Group:
    """The unnamed files of one unit whose content matches the hash in their name, the newest of each kind."""

    unit: str
    files: dict[str, Path] = field(default_factory=dict)
    tables: dict[str, pa.Table] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    """The metadata that the files hold about the unit; empty for files of older versions."""

    @property
    def sources(self) -> set[str]:
        """Ids of the sources of the files' rows."""
        columns = [table.column("source_id") for table in self.tables.values() if "source_id" in table.schema.names]
        return {source for column in columns for source in column.to_pylist() if source}


def aside_folder(root: Path) -> Path:
    """Return the folder for files that the corpus must not use: records of units to be redone, unreadable companions."""
    return root / "damaged"


def aside_records(root: Path) -> dict[str, dict[str, Any]]:
    """Return the records that were set aside so that their sources are processed again, by unit."""
    found = {}
    for path in sorted((aside_folder(root) / "units").glob("*.json")):
        try:
            found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue
    return found


def listings(records: Iterable[Mapping[str, Any]], wanted: Collection[str]) -> Listings:
    """Return (fingerprint, generation) of the records that list each of the wanted sources."""
    found: Listings = {}
    for record in records if wanted else ():
        for source in record["source_ids"]:
            if source in wanted:
                found.setdefault(source, set()).add((record["fingerprint"], record.get("generation") or 0))
    return found


def is_redone(aside: Mapping[str, Any], listed: Listings) -> bool:
    """Return True if records list all sources of a unit that was set aside."""
    return listed.keys() >= set(aside["source_ids"])


def sort_unnamed(root: Path, records: Iterable[dict[str, Any]], fingerprint: str | None) -> Unnamed:
    """Sort the files that no record names. records: in order of unit, read three times at most. fingerprint: that of the corpus."""
    result = Unnamed()
    units, aside = set[str](), aside_records(root)
    unnamed = _unnamed_by_unit(root, records, units, result)
    wanted = {source for unit in unnamed.keys() & aside.keys() for source in aside[unit]["source_ids"]}
    lost = [unit for unit in unnamed if unit not in units and unit not in aside]
    for unit in lost:
        wanted |= _group(root, unit, unnamed[unit]).sources
    listed = listings(records, wanted)
    forgotten = {source for found in read_tombstones(root) for source in found.source_ids}
    for unit, paths in unnamed.items():
        if unit in units:
            result.doubles += paths
        elif unit in aside:
            if is_redone(aside[unit], listed):
                result.doubles += paths
            else:
                what = "its record was set aside by a repair; the same prepare command processes its sources again"
                result.notices.append(Problem("notice", f"unit {unit}", what))
        else:
            _sort_group(root, _group(root, unit, paths), paths, listed, forgotten, fingerprint, result)
    return result


def _unnamed_by_unit(
    root: Path, records: Iterable[dict[str, Any]], units: set[str], result: Unnamed
) -> dict[str, list[Path]]:
    """Return the files that no record names, by unit. Records come in order of unit, and so do the folders of files. Their units
    are added to `units`."""
    found: dict[str, list[Path]] = defaultdict(list)
    elsewhere = set()
    for record in records:
        units.add(record["unit_id"])
        own_folder = f"/{record['unit_id'][:2]}/"
        elsewhere |= {file["path"] for file in record["files"] if own_folder not in file["path"]}
    folders = {path.name for kind in KINDS for path in (root / kind).glob("*") if path.is_dir()}
    by_folder = groupby(records, key=lambda record: record["unit_id"][:2])
    folder, own = next(by_folder, ("", iter(())))
    for name in sorted(folders):
        while folder < name and (folder or own):
            folder, own = next(by_folder, ("\uffff", iter(())))
        named = {file["path"] for record in own for file in record["files"]} if folder == name else set()
        for kind in KINDS:
            for path in sorted((root / kind / name).glob("*")):
                relative = path.relative_to(root).as_posix()
                if not path.is_file() or relative in named or relative in elsewhere:
                    continue
                if relative.startswith("quarantine/now/"):
                    continue
                match = _NAME.fullmatch(path.name)
                if match:
                    found[match.group(1)].append(path)
                else:
                    result.notices.append(Problem("notice", relative, "is not a file of a corpus; move it elsewhere"))
    return found


def _group(root: Path, unit: str, paths: list[Path]) -> _Group:
    group = _Group(unit)
    for path in sorted(paths, key=lambda path: path.stat().st_mtime):
        kind = path.relative_to(root).parts[0]
        try:
            table = (
                pa.ipc.open_file(pa.memory_map(str(path))).read_all() if kind == "segments" else read_file(path, kind)
            )
        except (pa.ArrowException, OSError):
            continue
        if file_sha256(path)[:8] == path.name.split(".")[-2]:
            group.files[kind], group.tables[kind] = path, table
            about = json.loads((table.schema.metadata or {}).get(b"voxmill", b"{}"))
            group.about = group.about | about
    return group


def _sort_group(
    root: Path,
    group: _Group,
    paths: list[Path],
    listed: Listings,
    forgotten: Collection[str],
    fingerprint: str | None,
    result: Unnamed,
) -> None:
    own = group.about.get("fingerprint", fingerprint)
    generation = group.about.get("generation") or 0
    committed = {
        source
        for source in group.sources
        if any(made == own and attempt >= generation for made, attempt in listed.get(source, ()))
    } | group.sources.intersection(forgotten)  # a record of these must never be rebuilt
    if group.sources and committed == group.sources:
        result.doubles += paths
        return
    record = None if committed else rebuilt_record(root, group, fingerprint)
    if record is not None:
        result.lost.append(record)
        rebuilt = {file["path"] for file in record["files"]}
        result.doubles += [path for path in paths if path.relative_to(root).as_posix() not in rebuilt]
        return
    what = "an unfinished unit: the same prepare command makes it, after which --repair removes these files"
    if not group.files:
        what = "no record names it and its content is not what its name says; it stays until you remove it"
    result.notices += [Problem("notice", path.relative_to(root).as_posix(), what) for path in paths]


def rebuilt_record(root: Path, group: _Group, fingerprint: str | None) -> dict[str, Any] | None:
    """Return the commit record that the files of a unit had; None if files are missing or fail a check."""
    recordings = group.tables.get("recordings")
    if recordings is None:
        return None
    index = group.tables.get("index", INDEX.empty_table())
    rows = {kind: table.num_rows for kind, table in group.tables.items()}
    own = group.about.get("fingerprint") or _proven(group, recordings, fingerprint)
    if own is None or group.about.get("rows", rows) != rows:
        return None
    files = [
        {
            "kind": kind,
            "path": group.files[kind].relative_to(root).as_posix(),
            "sha256": file_sha256(group.files[kind]),
            "bytes": group.files[kind].stat().st_size,
            "rows": rows[kind],
        }
        for kind in KINDS
        if kind in group.files
    ]
    sources = recordings.column("source_id").to_pylist()
    whole = all(set(SCHEMAS[kind].names) <= set(table.schema.names) for kind, table in group.tables.items())
    record = {
        "schema_version": SCHEMA_VERSION,
        "columns": COMMITTED_COLUMNS if whole else 0,
        "unit_id": group.unit,
        "fingerprint": own,
        "generation": group.about.get("generation") or 0,
        "session_ids": group.about.get("session_ids")
        or list(dict.fromkeys(recordings.column("session_id").to_pylist())),
        "source_ids": sources,
        "segments": index.num_rows,
        "seconds": float(sum(seconds or 0.0 for seconds in recordings.column("duration_s").to_pylist())),
        "at": datetime.fromtimestamp(group.files["recordings"].stat().st_mtime, UTC).isoformat(timespec="milliseconds"),
        "files": files,
        "stats": {},
    }
    shards = {name for name in index.column("shard").to_pylist() if name is not None}
    if shards != {file["path"] for file in files if file["kind"] == "segments"}:
        return None
    faults = check_audio(record, index, group.tables.get("segments")) + check_seconds(index, recordings)
    return None if faults else record


def _proven(group: _Group, recordings: pa.Table, fingerprint: str | None) -> str | None:
    """Return the corpus' fingerprint if the unit's id follows from it, otherwise None. For older units without audio."""
    columns = (recordings.column(name).to_pylist() for name in ("source_id", "bytes", "content_sha256"))
    return fingerprint if fingerprint and unit_id(zip(*columns, strict=True), fingerprint) == group.unit else None


class Records:
    """The commit records of a corpus as they were when this was made. They are read again each time, one by one."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names = sorted(path.relative_to(root / "units").as_posix() for path in (root / "units").glob("*/*.json"))
        self.broken: dict[Path, Problem] = {}
        """Records that are not readable, known after the first reading."""

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the records in order of unit. Records that are gone meanwhile or cannot be read are left out."""
        for name in self._names:
            record = self._read(f"{self._root}/units/{name}")
            if record is not None:
                yield record

    def get(self, unit: str) -> dict[str, Any] | None:
        """Return the record of a unit; None if there is none."""
        return self._read(f"{self._root}/units/{unit[:2]}/{unit}.json")

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            with open(name, "rb") as source:  # noqa: PTH123 - a Path takes longer than the file
                record: dict[str, Any] = json.loads(source.read())
        except FileNotFoundError:
            return None
        except ValueError:
            what, path = "this commit record is damaged", Path(name)
            self.broken[path] = Problem("error", path.relative_to(self._root).as_posix(), what)
            return None
        return record


@dataclass
class Findings:
    """What an examination of a corpus found, and what a repair needs."""

    records: Records
    problems: list[Problem] = field(default_factory=list)
    """Errors and notices that a repair cannot fix."""
    damaged: dict[str, list[Problem]] = field(default_factory=dict)
    """Faulty files by unit; `path` of a problem is the file's."""
    companions: list[Problem] = field(default_factory=list)
    """Annotations and latents that cannot be read: a later pass makes them again."""
    unnamed: Unnamed = field(default_factory=Unnamed)

    def add(self, problems: Iterable[Problem]) -> None:
        """Add problems with annotations or latents: errors are for the repair."""
        for problem in problems:
            (self.companions if problem.severity == "error" else self.problems).append(problem)
