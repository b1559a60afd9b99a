"""Manifests: JSON lines, CSV and TSV with a path per clip (NeMo, VoxCPM, pocket-tts, dots, Qwen3-TTS, LJ Speech, our own)."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from catalogs.exchange.sources.row import AUDIO, BadRow, Roots, Row, RowError, facts_of, number

_SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".csv", ".tsv")
_LONGEST_LINE = 16 * 1024 * 1024


def files(path: Path) -> list[Path] | None:
    """Return the manifests of a file or folder. Of LJ Speech, segments.jsonl counts before metadata.csv."""
    if path.is_file():
        return [path] if path.name.lower().endswith(_SUFFIXES) or path.suffix.lower() == ".json" else None
    if (path / "segments.jsonl").is_file():
        return [path / "segments.jsonl"]
    found = sorted(file for file in path.iterdir() if file.is_file() and file.name.lower().endswith(_SUFFIXES))
    return [file for file in found if not file.name.startswith(".")] or None


def rows(file: Path, roots: Roots) -> Iterator[Row | BadRow]:
    """Yield the rows of a manifest."""
    read = _csv if file.suffix.lower() in (".csv", ".tsv") else json_rows
    for place, row in read(file):
        name = f"{file.name}#{place}"
        if isinstance(row, str):
            yield BadRow(name, row)
            continue
        try:
            yield row_of(name, row, file.parent, roots)
        except RowError as error:
            yield BadRow(name, str(error))


def row_of(name: str, row: Mapping[str, Any], folder: Path, roots: Roots) -> Row:
    """Return a row with a path. Raises RowError if it has none."""
    path = next((row[key] for key in AUDIO if isinstance(row.get(key), str) and row[key]), None)
    if path is None:
        raise RowError(f"it names no audio file; one of these is needed: {', '.join(AUDIO[:5])}")
    if "wavs" not in Path(path).parts and not (folder / path).exists() and (folder / "wavs" / path).is_file():
        path = f"wavs/{path}"
    start = number(row.get("offset", row.get("start")), "start")
    seconds = number(row.get("duration"), "duration") if start is not None else None
    stop = None if start is None or seconds is None else start + seconds
    return Row(name, facts_of(row), partial(roots.read, path, folder), start, stop)


def json_rows(file: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield (line number, row or reason) of a file of JSON lines, compressed if its name ends in .gz."""
    with _opened(file) as lines:
        number = 0
        while line := lines.readline(_LONGEST_LINE):
            number += 1
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield number, row if isinstance(row, dict) else "it is not a JSON object in one line"


def _opened(file: Path) -> Any:
    return gzip.open(file, "rb") if file.name.endswith(".gz") else file.open("rb")


def _csv(file: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield (row number, row or reason). Without a head, the columns are those of LJ Speech: id|text|normalized text."""
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as source:
        head = source.readline()
        if "|" in head and "," not in head.split("|")[0]:
            names = [name.strip() for name in head.split("|")]
            has_head = any(name in (*AUDIO, "id") for name in names)
            lines = source if has_head else chain([head], source)
            for number, line in enumerate(lines, 1):
                cells = line.rstrip("\r\n").split("|")
                if line.strip():
                    yield number, dict(zip(names, cells, strict=False)) if has_head else _lj_speech(cells)
            return
        source.seek(0)
        comma = file.suffix.lower() == ".csv"
        # Quotes have no meaning in a .tsv: Common Voice has sentences with a single quote.
        table = csv.DictReader(source) if comma else csv.DictReader(source, delimiter="\t", quoting=csv.QUOTE_NONE)
        number = 0
        while True:
            number += 1
            try:
                row = next(table, None)
            except csv.Error as error:
                yield number, f"its line is not CSV ({error})"
                continue
            if row is None:
                return
            yield number, {key: value for key, value in row.items() if key is not None}


def _lj_speech(cells: list[str]) -> dict[str, Any] | str:
    if len(cells) < 2:
        return "it is not id|text|normalized text"
    return {"id": cells[0], "text": cells[-1] or cells[1], "audio": f"wavs/{cells[0]}.wav"}
