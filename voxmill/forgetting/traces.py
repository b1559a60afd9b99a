"""Erasing from caches, lists and logs of a corpus, which hold texts, clips or paths of what is forgotten."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from catalogs.candidates.stored import FOLDER as CANDIDATES
from catalogs.corpus.commit import read_records, sweep_tmp, write_in_corpus
from catalogs.corpus.damage import reading
from catalogs.corpus.latents import latent_files
from catalogs.corpus.repair import drop_compaction
from catalogs.corpus.unit_checks import KINDS, read_file
from catalogs.corpus.unnamed import aside_folder
from catalogs.query.views import catalog_path
from voxmill.forgetting.units import Gone

REPORT = "report.html"


def drop_copies(root: Path) -> None:
    """Remove what is made of units and holds their texts or clips: compacted files, catalog, tables of trainers, the report.

    Each is made again when it is needed, the report by its command.
    """
    (root / REPORT).unlink(missing_ok=True)
    catalog_path(root).unlink(missing_ok=True)
    drop_compaction(root)
    tables = root / CANDIDATES
    if tables.is_dir():
        with (tables / ".lock").open("a") as lock:
            # A trainer that makes its table now makes it of what readers see: it is waited for.
            fcntl.flock(lock, fcntl.LOCK_EX)
            for folder in sorted(tables.iterdir()):
                if folder.is_dir():
                    shutil.rmtree(folder, ignore_errors=True)


def erase_traces(root: Path, gone: Gone) -> None:
    """Erase hashes, refusals, run summaries and logs of the forgotten recordings. Comes before the units, which know the paths."""
    sweep_tmp(root)
    paths = _paths(root, gone)
    for file in sorted(root.glob("hashes*.jsonl")):
        _filter_lines(root, file, lambda line: not any(content in line for content in gone.contents))
    _filter_list(root, root / "hashes.json", lambda entry: not gone.contents.intersection(map(str, entry)))
    for file in sorted(root.glob("run*.json")):
        _filter_summary(root, file, paths)
    for file in sorted((root / "quarantine" / "now").glob("*.parquet")):
        rows = pq.ParquetFile(file).read().to_pylist()
        if any(row["path"] in paths or row["source_id"] in gone.sources for row in rows):
            file.unlink()
    for file in sorted((root / "logs").glob("*.txt")):
        text = file.read_text(encoding="utf-8", errors="replace")
        if any(path in text for path in paths):
            file.unlink()


def erase_unnamed(root: Path, gone: Gone) -> list[str]:
    """Remove files that no record names and that hold what is forgotten, and set-aside files that cannot be read. Return the names
    of the latter."""
    named = {file["path"] for record in read_records(root, superseded=True) for file in record["files"]}
    for kind in KINDS:
        for path in sorted((root / kind).glob("[0-9a-f][0-9a-f]/*.*")):
            if path.relative_to(root).as_posix() not in named and _holds(path, gone) is not False:
                path.unlink()
    for path in latent_files(root):
        if _holds(path, gone):
            path.unlink()
    lost = []
    for path in sorted(aside_folder(root).rglob("*")):
        if not path.is_file():
            continue
        if path.suffix == ".json":
            _drop_record(path, gone)
        elif (holds := _holds(path, gone)) is not False:
            path.unlink()
            lost += [path.relative_to(root).as_posix()] if holds is None else []
    return lost


def _holds(path: Path, gone: Gone) -> bool | None:
    """Return whether an Arrow or Parquet file holds what is forgotten; None if it cannot be read."""
    try:
        if path.suffix == ".arrow":
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        elif path.parent.parent.name in KINDS:
            table = read_file(path, path.parent.parent.name)
        else:
            table = pq.ParquetFile(path).read()
    except (OSError, pa.ArrowException, ValueError):
        return None
    columns = {"source_id": gone.sources | gone.partial, "segment_id": gone.segments, "reference_id": gone.segments}
    return any(
        not ids.isdisjoint(table.column(name).to_pylist())
        for name, ids in columns.items()
        if name in table.schema.names
    )


def _drop_record(path: Path, gone: Gone) -> None:
    """Remove a record that was set aside if all of its recordings are forgotten."""
    with suppress(ValueError, KeyError, TypeError):
        if set(json.loads(path.read_text(encoding="utf-8"))["source_ids"]) <= gone.sources:
            path.unlink()


def _paths(root: Path, gone: Gone) -> set[str]:
    """Return the paths of the recordings that are forgotten as a whole."""
    found: set[str] = set()
    for record in read_records(root, superseded=True):
        if record["unit_id"] not in gone.units:
            continue
        for file in record["files"]:
            if file["kind"] == "recordings":
                with reading(root / file["path"]), pq.ParquetFile(root / file["path"]) as source:
                    rows = source.read(columns=["source_id", "path"]).to_pylist()
                found |= {row["path"] for row in rows if row["source_id"] in gone.sources and row["path"]}
    return found


def _filter_lines(root: Path, path: Path, stays: Callable[[str], bool]) -> None:
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines(keepends=True)
    left = [line for line in lines if stays(line)]
    if len(left) != len(lines):
        write_in_corpus(root, path, "".join(left).encode("utf-8", "surrogateescape"))


def _filter_list(root: Path, path: Path, stays: Callable[[Any], bool]) -> None:
    with suppress(FileNotFoundError, ValueError, TypeError):
        entries = json.loads(path.read_text(encoding="utf-8"))
        left = [entry for entry in entries if stays(entry)]
        if len(left) != len(entries):
            write_in_corpus(root, path, json.dumps(left).encode())


def _filter_summary(root: Path, path: Path, paths: set[str]) -> None:
    with suppress(ValueError, KeyError, TypeError):
        summary = json.loads(path.read_text(encoding="utf-8"))
        left = [row for row in summary["quarantined"] if row["path"] not in paths]
        if len(left) != len(summary["quarantined"]):
            write_in_corpus(root, path, json.dumps(summary | {"quarantined": left}, indent=1).encode())
