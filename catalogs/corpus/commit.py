"""Writing a corpus: a unit appears whole, once, or not at all.

Files are written under tmp/, forced to the disk and renamed to names that carry their content's hash; then the unit's
record, which lists them, is linked into units/. That link is the commit: readers enumerate records and nothing else.
The first record wins, so two workers on one unit, or a worker that was killed and runs again, never show it twice.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from catalogs.corpus.attempts import newest_records
from catalogs.corpus.ids import short_hash
from catalogs.corpus.locks import own_scratch, sweep_scratch
from catalogs.corpus.schema import COMMITTED_COLUMNS, INDEX, QUARANTINE, RECORDINGS, REFERENCES, SCHEMA_VERSION
from catalogs.corpus.shards import has_audio, index_rows, to_table, write_shard
from catalogs.files import fsync_path, make_folder, write_atomically, write_durably

_RECORDS = "*/*.json"
"""Commit records below units/."""


class CorpusError(ValueError):
    """A folder is not a corpus that can be used; the message is one line that says what to do."""


@dataclass(frozen=True)
class UnitContent:
    """Everything one unit commits. Rows are dicts with the columns of `catalogs.corpus.schema`.

    `rows`: SEGMENTS columns for every segment, kept or rejected; `audio` is FLAC bytes, or None after a hard rule.
    `stats`: busy seconds per stage (`busy_s`), wall seconds (`wall_s`), digest of the settings; kept in the record.
    `generation`: 0 for sources that no record lists yet, else one more than the highest of the records that list them; of two
    records that list a source the one of the higher generation counts (`catalogs.corpus.attempts`).
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
    """Make `root` a corpus (or open one that is there); returns corpus.json. Safe to call again and by many workers.

    Raises CorpusError when the folder is a file, holds other things, or a corpus of a newer format.
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
    """corpus.json of a corpus; CorpusError when the folder is none or was written by a newer or older version."""
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
    """corpus.json as it is; None if it is damaged, or missing beside commit records. CorpusError if this is not a corpus."""
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
    """Where the commit record of a unit is (or will be)."""
    return Path(root) / "units" / unit[:2] / f"{unit}.json"


def is_inside(name: str) -> bool:
    """Return True if a path within a corpus, as a record or a row names it, stays below the corpus folder."""
    return not name.startswith("/") and ".." not in name.split("/") and "\\" not in name and "\0" not in name


def committed_units(root: str | Path) -> set[str]:
    """Ids of the units that are committed: what a resumed run leaves out."""
    return {path.stem for path in (Path(root) / "units").glob(_RECORDS)}


def read_records(root: str | Path, superseded: bool = False) -> Iterator[dict[str, Any]]:
    """The commit records of a corpus, in order of unit id. CorpusError for one that cannot be read.

    Units made under other settings than the corpus' present ones (`prepare --redo`) are left out unless `superseded`:
    they stay on the disk, but nobody may mix them with their successors. The same holds for units whose sources were all
    processed again; of a unit where only some were, the record has their ids under `superseded` (not on the disk).
    """
    if superseded:
        yield from _all_records(Path(root))
        return
    current = corpus_info(root).get("fingerprint")
    records = _all_records(Path(root))
    yield from newest_records([r for r in records if current is None or r["fingerprint"] == current])


def _all_records(root: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((root / "units").glob(_RECORDS)):
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
        yield record


def bind_fingerprint(root: str | Path, fingerprint: str, redo: bool = False) -> None:
    """Bind a corpus to the fingerprint of the settings it is made with; a bound one is bound again only with `redo`.

    Raises CorpusError when the corpus was made with other settings: two kinds of segments must never mix.
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
    """Commit a unit and return its record; if the unit is committed already, the existing record and nothing else.

    Raises OSError (e.g. ENOSPC) with nothing of the unit visible, ValueError for rows that do not fit the format.
    """
    root = Path(root)
    final = record_path(root, unit.unit_id)
    if final.is_file():
        return json.loads(final.read_text(encoding="utf-8"))
    with own_scratch(root / "tmp") as attempt:
        files = _write_files(root, unit, attempt)
        record = _record(unit, files)
        winner = _link_record(_write_record(attempt, record), final)
    if winner is None:
        return record
    kept = {file["path"] for file in winner["files"]}
    for file in files:
        if file["path"] not in kept:
            (root / file["path"]).unlink(missing_ok=True)
    return winner


def commit_record(root: str | Path, record: Mapping[str, Any]) -> None:
    """Commit a unit whose files are all in place, by its record alone; nothing happens if the unit has a record."""
    with own_scratch(Path(root) / "tmp") as attempt:
        _link_record(_write_record(attempt, record), record_path(root, record["unit_id"]))


def _write_record(folder: Path, record: Mapping[str, Any]) -> Path:
    draft = folder / "record.json"
    write_durably(draft, lambda sink: sink.write(json.dumps(record, indent=1, ensure_ascii=False).encode()))
    return draft


def _write_files(root: Path, unit: UnitContent, attempt: Path) -> list[dict[str, Any]]:
    """Write, force out and rename every file of the unit; returns their entries for the record."""
    import pyarrow.parquet as pq

    def parquet(table: pa.Table) -> Callable[[IO[bytes]], None]:
        return lambda sink: pq.write_table(table, sink, compression="zstd")

    with_audio = [row for row in unit.rows if has_audio(row)]
    files = []
    shard = None
    if with_audio:
        entry = _place(
            root, unit.unit_id, "segments", "arrow", attempt, lambda f: write_shard(f, with_audio, unit.fingerprint)
        )
        files.append(entry | {"rows": len(with_audio)})
        shard = entry["path"]
    tables = {
        "index": to_table(index_rows(unit.rows, shard), INDEX),
        "recordings": to_table(unit.recordings, RECORDINGS),
        "references": to_table(unit.references, REFERENCES),
        "quarantine": to_table(unit.quarantine, QUARANTINE),
    }
    rows = {"segments": len(with_audio)} | {kind: table.num_rows for kind, table in tables.items()}
    about = unit_about(unit, {kind: count for kind, count in rows.items() if count})
    for kind, table in tables.items():
        if table.num_rows:
            told = table.replace_schema_metadata({b"voxmill": json.dumps(about, ensure_ascii=False).encode()})
            entry = _place(root, unit.unit_id, kind, "parquet", attempt, parquet(told))
            files.append(entry | {"rows": table.num_rows})
    return files


def unit_about(unit: UnitContent, rows: Mapping[str, int]) -> dict[str, Any]:
    """What each Parquet file of a unit says of the whole unit in its metadata: enough to rebuild a record that was lost."""
    return {
        "unit_id": unit.unit_id,
        "fingerprint": unit.fingerprint,
        "generation": unit.generation,
        "session_ids": list(unit.sessions),
        "rows": dict(rows),
    }


def _place(
    root: Path, unit: str, kind: str, suffix: str, attempt: Path, write: Callable[[IO[bytes]], object]
) -> dict[str, Any]:
    draft = attempt / f"{kind}.{suffix}"
    sha256, size = write_durably(draft, write)
    relative = f"{kind}/{unit[:2]}/{unit}.{sha256[:8]}.{suffix}"
    final = root / relative
    make_folder(final.parent)
    os.replace(draft, final)  # noqa: PTH105 - the one call the protocol is about
    fsync_path(final.parent)
    return {"kind": kind, "path": relative, "sha256": sha256, "bytes": size}


def _record(unit: UnitContent, files: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "columns": COMMITTED_COLUMNS,
        "unit_id": unit.unit_id,
        "fingerprint": unit.fingerprint,
        "generation": unit.generation,
        "session_ids": list(unit.sessions),
        "source_ids": [recording["source_id"] for recording in unit.recordings],
        "segments": len(unit.rows),
        "seconds": float(sum(recording.get("duration_s") or 0.0 for recording in unit.recordings)),
        "at": _now(),
        "files": files,
        "stats": dict(unit.stats),
    }


def _link_record(draft: Path, final: Path) -> dict[str, Any] | None:
    """The commit: make the record visible unless there is one; returns that one, or None when ours is it now."""
    make_folder(final.parent)
    try:
        os.link(draft, final)
    except FileExistsError:
        return json.loads(final.read_text(encoding="utf-8"))
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK):
            raise
        # No hard links on this file system. One writer a unit is the rule there; the rename is still all or nothing.
        if final.is_file():
            return json.loads(final.read_text(encoding="utf-8"))
        os.replace(draft, final)  # noqa: PTH105
    fsync_path(final.parent)
    return None


def quarantine_now(root: str | Path, row: Mapping[str, Any], arguments: Sequence[str] = ()) -> Path:
    """Persist one quarantine verdict at once, outside of any unit: a driver killed later must not forget it.

    The same verdict (path, source, stage, error) written again replaces itself. `arguments`: the sources that were asked for,
    by which a later run knows whether it has looked at the same place.
    """
    import pyarrow.parquet as pq

    name = short_hash("quarantine", *(str(row.get(key)) for key in ("path", "source_id", "stage", "error")))
    table = to_table([row], QUARANTINE)
    if arguments:
        table = table.replace_schema_metadata({b"voxmill": json.dumps({"arguments": list(arguments)}).encode()})
    final = Path(root) / "quarantine" / "now" / f"{name}.parquet"
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_in_corpus(Path(root), final, sink.getvalue().to_pybytes())
    return final


def write_in_corpus(root: str | Path, final: Path, data: bytes) -> None:
    """Put `data` at `final`, a path inside the corpus, whole or not at all; the draft is in a separate folder below tmp/."""
    with own_scratch(Path(root) / "tmp") as folder:
        write_atomically(final, data, folder)


def sweep_tmp(root: str | Path) -> int:
    """Remove what killed writers left in tmp/; return the bytes freed. What living writers have there stays."""
    return sweep_scratch(Path(root) / "tmp")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
