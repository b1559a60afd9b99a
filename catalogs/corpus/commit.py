"""Writing a corpus: a unit is committed atomically, and once.

Files are written under tmp/, forced to the disk and renamed to names that contain their content's hash (`write_unit_files`, by
the worker that has the audio). Then the unit's record, which lists them, is linked into units/ (`link_unit`, by the driver).
That link is the commit: readers enumerate records and nothing else. The first record wins. So a unit appears once even if two
workers process it, or if a worker is killed and runs again. A kill between the steps leaves files that no record names.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from catalogs.corpus.attempts import newest, newest_records
from catalogs.corpus.locks import CorpusError as CorpusError  # callers take it from here
from catalogs.corpus.locks import own_scratch, sweep_scratch
from catalogs.corpus.row_files import write_rows
from catalogs.corpus.schema import COMMITTED_COLUMNS, INDEX, QUARANTINE, RECORDINGS, REFERENCES, SCHEMA_VERSION
from catalogs.corpus.shards import has_audio, index_row, place_rows, to_table, write_shard
from catalogs.corpus.tombstones import hidden
from catalogs.files import fsync_path, make_folder, write_atomically, write_durably

_RECORDS = "*/*.json"
"""Commit records below units/."""


HELD_RECORDS = 20_000
"""Records that are held in memory, 5 kB each; more are read twice."""


@dataclass(frozen=True)
class UnitPart:
    """Content of one session of a unit, which may be made in another process than that of the other sessions."""

    rows: Sequence[Mapping[str, Any]]
    recordings: Sequence[Mapping[str, Any]]
    references: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class UnitContent:
    """Everything that one unit commits. Rows are dicts with the columns of `catalogs.corpus.schema`.

    `rows`: SEGMENTS columns for every segment, kept or rejected; `audio` is FLAC bytes, or None after a hard rule.
    `stats`: busy seconds per stage (`busy_s`), wall seconds (`wall_s`), digest of the settings; stored in the record.
    `generation`: 0 for sources that no record lists yet, otherwise one more than the highest generation of the records that list
    them. If two records list a source, the one of the higher generation counts (`catalogs.corpus.attempts`).
    """

    unit_id: str
    fingerprint: str
    sessions: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    recordings: Sequence[Mapping[str, Any]]
    references: Sequence[Mapping[str, Any]] = ()
    quarantine: Sequence[Mapping[str, Any]] = ()
    stats: Mapping[str, Any] = field(default_factory=dict)
    generation: int = 0


def create_corpus(root: str | Path, name: str | None = None, license: str | None = None) -> dict[str, Any]:
    """Make `root` a corpus, or open an existing one; return corpus.json. Safe to call again and by many workers.

    Raises CorpusError if the folder is a file, holds other things, or is a corpus of another format.
    """
    root = Path(root)
    marker = root / "corpus.json"
    if not marker.is_file():
        nearest = next(path for path in (root, *root.absolute().parents) if path.exists())
        if not nearest.is_dir():
            raise CorpusError(f"{nearest} is a file; choose a folder for the corpus: a new one, or an earlier corpus")
        if any((root / "units").glob(_RECORDS)):
            return corpus_info(root)
        if root.is_dir() and any(not entry.name.startswith(".") for entry in root.iterdir()):
            raise CorpusError(f"{root} is not empty and not a corpus; choose another folder for the corpus")
        root.mkdir(parents=True, exist_ok=True)
        description = {
            "name": name or root.resolve().name,
            "schema_version": SCHEMA_VERSION,
            "license": license,
            "created_at": _now(),
        }
        write_atomically(marker, json.dumps(description, indent=2, ensure_ascii=False).encode())
    for folder in ("tmp", "units", "segments", "index", "recordings", "references", "quarantine", "annotations"):
        (root / folder).mkdir(exist_ok=True)
    return corpus_info(root)


def corpus_info(root: str | Path) -> dict[str, Any]:
    """Return corpus.json. Raises CorpusError if the folder is not a corpus, or is one of a newer or older format."""
    info = read_info(Path(root))
    if info is None:
        raise CorpusError(
            f"{root}/corpus.json is damaged or missing; run: voxmill fsck {shlex.quote(str(root))} --repair, which writes it again"
        )
    if info.get("schema_version", 0) > SCHEMA_VERSION:
        raise CorpusError(f"{root} has format {info['schema_version']}, newer than {SCHEMA_VERSION}: update voxmill")
    if info.get("schema_version", 0) < SCHEMA_VERSION:
        raise CorpusError(
            f"{root} has format {info.get('schema_version', 0)} of an older voxmill, this one reads {SCHEMA_VERSION}: "
            "prepare the recordings into another folder"
        )
    return info


def read_info(root: Path) -> dict[str, Any] | None:
    """Return corpus.json unchecked; None if it is damaged, or missing beside commit records. CorpusError for other folders."""
    try:
        info = json.loads((root / "corpus.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if not any((root / "units").glob(_RECORDS)):
            raise CorpusError(f"{root} is not a corpus (no corpus.json); make one with: voxmill prepare ...") from None
        return None
    except ValueError:
        return None
    return info if isinstance(info, dict) else None


def record_path(root: str | Path, unit: str) -> Path:
    """Return the path of a unit's commit record, which may not exist yet."""
    return Path(root) / "units" / unit[:2] / f"{unit}.json"


def is_inside(name: str) -> bool:
    """Return True if a path within a corpus, as a record or a row names it, stays below the corpus folder."""
    return not name.startswith("/") and ".." not in name.split("/") and "\\" not in name and "\0" not in name


def committed_units(root: str | Path) -> set[str]:
    """Return the ids of the committed units; a resumed run skips them."""
    return {path.stem for path in (Path(root) / "units").glob(_RECORDS)}


def read_records(root: str | Path, superseded: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the commit records of a corpus, in order of unit id. Raises CorpusError for one that cannot be read.

    Units made with other settings than the present ones (`prepare --redo`) are left out unless `superseded`. They stay on the
    disk, but must not be mixed with their successors. Units whose sources were all processed again are left out too. If only
    some were, the record has their ids under `superseded` (not on the disk). Recordings that are forgotten as a whole
    (`catalogs.corpus.tombstones`) are treated likewise.
    """
    root = Path(root)
    current = None if superseded else corpus_info(root).get("fingerprint")
    gone = frozenset() if superseded else hidden(root).sources
    paths = sorted((root / "units").glob(_RECORDS))

    def read() -> Iterator[dict[str, Any]]:
        records = (read_record(root, path) for path in paths)
        return (record for record in records if current is None or record["fingerprint"] == current)

    if superseded:
        yield from read()
    elif len(paths) > HELD_RECORDS:
        yield from newest(read, gone)
    else:
        yield from newest_records(list(read()), gone)


def read_record(root: str | Path, path: Path) -> dict[str, Any]:
    """Return the commit record at `path`. Raises CorpusError if it cannot be read or names files outside of the corpus."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise CorpusError(
            f"the record {path} is damaged; run: voxmill fsck {shlex.quote(str(root))} --repair"
        ) from None
    for name in (record.get("unit_id", ""), *(file["path"] for file in record["files"])):
        if not is_inside(name):
            raise CorpusError(
                f"the record {path} names {name}, which is not in this corpus: it was not written by voxmill; "
                "do not use this corpus, or remove the record"
            )
    return record


def bind_fingerprint(root: str | Path, fingerprint: str, redo: bool = False) -> None:
    """Bind a corpus to the fingerprint of its settings. A bound corpus gets another fingerprint only with `redo`.

    Raises CorpusError if the corpus was made with other settings: segments of different settings must not mix.
    """
    root = Path(root)
    info = corpus_info(root)
    bound = info.get("fingerprint")
    if bound == fingerprint:
        return
    if bound is not None and not redo:
        raise CorpusError(
            f"{root} was made with other settings or models (see {root}/prepare.yaml): use these, give another --out, "
            "or process all of it again with --redo (what is there stays on the disk until you remove it)"
        )
    text = json.dumps(info | {"fingerprint": fingerprint}, indent=2, ensure_ascii=False)
    write_in_corpus(root, root / "corpus.json", text.encode())


def commit_unit(root: str | Path, unit: UnitContent) -> dict[str, Any]:
    """Commit a unit and return its record. If the unit is already committed, only return the existing record.

    Raises OSError (e.g. ENOSPC), with nothing of the unit visible, and ValueError for rows that do not fit the format.
    """
    return link_unit(root, write_unit_files(root, unit))


def write_unit_files(root: str | Path, unit: UnitContent, parts: Iterable[UnitPart] = ()) -> dict[str, Any]:
    """Write the files of a unit and return the record that names them, for `link_unit`; no reader sees them before that.

    `parts`: content after that of `unit`. They are taken one at a time, so that only one part's audio is in memory. If the unit
    is already committed, nothing is written and its record is returned. Raises as `commit_unit` does.
    """
    root = Path(root)
    final = record_path(root, unit.unit_id)
    if final.is_file():
        return json.loads(final.read_text(encoding="utf-8"))
    with own_scratch(root / "tmp") as attempt:
        return _write_files(root, unit, parts, attempt)


def link_unit(root: str | Path, record: Mapping[str, Any], drafts: Path | None = None) -> dict[str, Any]:
    """Commit a unit whose files `write_unit_files` has written, maybe on another machine. Return the record that counts.

    `drafts`: a folder of the caller alone below the corpus' tmp/. Default: a new one. The first record wins: if there is one, the
    files that only `record` names are removed. Raises OSError, with nothing visible.
    """
    root = Path(root)
    final = record_path(root, record["unit_id"])
    # The time of the commit is this process's: a run compares it with its own start, and another machine's clock may differ.
    record = {**record, "at": _now()}
    with own_scratch(root / "tmp") if drafts is None else nullcontext(drafts) as attempt:
        draft = _write_record(attempt, record)
        winner = _link_record(draft, final)
        draft.unlink(missing_ok=True)
    if winner is None:
        return record
    kept = {file["path"] for file in winner["files"]}
    for file in record["files"]:
        if file["path"] not in kept:
            (root / file["path"]).unlink(missing_ok=True)
    return winner


def commit_record(root: str | Path, record: Mapping[str, Any]) -> None:
    """Commit a unit whose files are all in place by linking its record. Does nothing if the unit has a record."""
    with own_scratch(Path(root) / "tmp") as attempt:
        _link_record(_write_record(attempt, record), record_path(root, record["unit_id"]))


def replace_record(root: str | Path, record: Mapping[str, Any]) -> None:
    """Replace the record of a unit whose files were written again, at once for readers. Only for `voxmill forget`: units never
    change otherwise. The caller holds the run lock."""
    final = record_path(root, record["unit_id"])
    with own_scratch(Path(root) / "tmp") as attempt:
        os.replace(_write_record(attempt, record), final)  # noqa: PTH105
    fsync_path(final.parent)


def _write_record(folder: Path, record: Mapping[str, Any]) -> Path:
    draft = folder / f"{record['unit_id']}.json"
    write_durably(draft, lambda sink: sink.write(json.dumps(record, indent=1, ensure_ascii=False).encode()))
    return draft


def _write_files(root: Path, unit: UnitContent, parts: Iterable[UnitPart], attempt: Path) -> dict[str, Any]:
    """Write, fsync and rename every file of the unit; return its record."""

    def parquet(table: pa.Table) -> Callable[[IO[bytes]], None]:
        return lambda sink: write_rows(table, sink)

    index: list[dict[str, Any]] = []
    recordings: list[Mapping[str, Any]] = []
    references: list[Mapping[str, Any]] = []

    def rows_with_audio() -> Iterator[Mapping[str, Any]]:
        for part in chain([UnitPart(unit.rows, unit.recordings, unit.references)], parts):
            recordings.extend(part.recordings)
            references.extend(part.references)
            for row in part.rows:
                index.append(index_row(row))
                if has_audio(row):
                    yield row

    files = []
    shard = None
    with_audio = rows_with_audio()
    # The first row decides whether there is a shard. Without any, this goes through all parts.
    first = next(with_audio, None)
    if first is not None:
        rows = chain([first], with_audio)
        entry = place_file(
            root, unit.unit_id, "segments", "arrow", attempt, lambda f: write_shard(f, rows, unit.fingerprint)
        )
        shard = entry["path"]
        files.append(entry | {"rows": place_rows(index, shard)})
    tables = {
        "index": to_table(index, INDEX),
        "recordings": to_table(recordings, RECORDINGS),
        "references": to_table(references, REFERENCES),
        "quarantine": to_table(unit.quarantine, QUARANTINE),
    }
    counts = {"segments": files[0]["rows"] if files else 0} | {kind: table.num_rows for kind, table in tables.items()}
    about = unit_about(unit, {kind: count for kind, count in counts.items() if count})
    for kind, table in tables.items():
        if table.num_rows:
            told = table.replace_schema_metadata({b"voxmill": json.dumps(about, ensure_ascii=False).encode()})
            entry = place_file(root, unit.unit_id, kind, "parquet", attempt, parquet(told))
            files.append(entry | {"rows": table.num_rows})
    return _record(unit, len(index), recordings, files)


def unit_about(unit: UnitContent, rows: Mapping[str, int]) -> dict[str, Any]:
    """Return the metadata that each Parquet file of a unit holds about the unit: enough to rebuild a lost record."""
    return {
        "unit_id": unit.unit_id,
        "fingerprint": unit.fingerprint,
        "generation": unit.generation,
        "session_ids": list(unit.sessions),
        "rows": dict(rows),
    }


def place_file(
    root: Path, unit: str, kind: str, suffix: str, attempt: Path, write: Callable[[IO[bytes]], object]
) -> dict[str, Any]:
    """Write a file of a unit durably under a name that contains its hash; return its entry in the record, without `rows`.

    attempt: a folder of the caller alone below the corpus' tmp/.
    """
    draft = attempt / f"{kind}.{suffix}"
    sha256, size = write_durably(draft, write)
    relative = f"{kind}/{unit[:2]}/{unit}.{sha256[:8]}.{suffix}"
    final = root / relative
    make_folder(final.parent)
    os.replace(draft, final)  # noqa: PTH105 - the commit protocol relies on this call
    fsync_path(final.parent)
    return {"kind": kind, "path": relative, "sha256": sha256, "bytes": size}


def _record(
    unit: UnitContent, segments: int, recordings: Sequence[Mapping[str, Any]], files: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "columns": COMMITTED_COLUMNS,
        "unit_id": unit.unit_id,
        "fingerprint": unit.fingerprint,
        "generation": unit.generation,
        "session_ids": list(unit.sessions),
        "source_ids": [recording["source_id"] for recording in recordings],
        "segments": segments,
        "seconds": float(sum(recording.get("duration_s") or 0.0 for recording in recordings)),
        "at": _now(),
        "files": files,
        "stats": dict(unit.stats),
    }


def _link_record(draft: Path, final: Path) -> dict[str, Any] | None:
    """Commit: make the record visible unless there is one. Return the existing record, or None if ours is the first."""
    make_folder(final.parent)
    try:
        os.link(draft, final)
    except FileExistsError:
        return json.loads(final.read_text(encoding="utf-8"))
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK):
            raise
        # This file system has no hard links, so only one writer per unit is safe here. The rename is still atomic.
        if final.is_file():
            return json.loads(final.read_text(encoding="utf-8"))
        os.replace(draft, final)  # noqa: PTH105
    fsync_path(final.parent)
    return None


def write_in_corpus(root: str | Path, final: Path, data: bytes) -> None:
    """Write `data` to `final`, a path inside the corpus, atomically; the draft is in a separate folder below tmp/."""
    with own_scratch(Path(root) / "tmp") as folder:
        write_atomically(final, data, folder)


def sweep_tmp(root: str | Path) -> int:
    """Remove what killed writers left in tmp/; return the bytes freed. Files of live writers stay."""
    return sweep_scratch(Path(root) / "tmp")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
