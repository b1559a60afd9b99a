"""Rows of JSONL and Parquet files with audio inside or beside them, as public test sets are published on the model hub."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from catalogs.files import one_line
from evaluation.errors import EvaluationError
from evaluation.items import Item, read_lines
from evaluation.languages import language_code
from evaluation.lists.base import Pick, cache_root, ending_of, find_file, is_audio, keep_clip

_TEXT = ("target_text", "infer_text", "text")
_WORDS = ("prompt_text", "ref_text", "reference_text")
_CLIP = ("prompt_audio", "ref_audio", "reference_audio", "audio")
_ID = ("id", "utt", "uttid", "audio_id")


class TableFile:
    """A JSONL or Parquet file. Its audio is read only for the rows that are wanted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_parquet = path.suffix == ".parquet"

    def rows(self, without: Collection[str] = ()) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (number from 1, row). without: columns of a Parquet file that are not read."""
        if not self._is_parquet:
            yield from self._lines()
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = 0
        try:
            with pq.ParquetFile(self.path) as file:
                names = [name for name in file.schema_arrow.names if name not in without]
                for batch in file.iter_batches(256, columns=names):
                    for row in batch.to_pylist():
                        number += 1
                        yield number, row
        except (OSError, pa.ArrowException) as error:
            raise EvaluationError(f"{self.path} cannot be read ({one_line(error)}); fetch it again") from None

    def clips(self, column: str, wanted: Collection[int], root: Path) -> dict[int, Path]:
        """Return the audio of rows by their number: stored below `root` if it is in the table, otherwise the file beside it.

        Raises EvaluationError with the row of a file that does not exist, or of bytes that are not audio.
        """
        if not wanted:
            return {}
        found = {}
        light = [name for name in self._names() if name != column]
        for number, row in self.rows(light):
            if number in wanted:
                try:
                    found[number] = self._clip(row.get(column), root)
                except EvaluationError as error:
                    raise EvaluationError(f"{self.path}, row {number}: {column}: {error}") from None
        return found

    def column(self, names: Sequence[str]) -> str | None:
        """Return the first of some names that is a column; None if none is."""
        columns = self._names()
        return next((name for name in names if name in columns), None)

    def language(self, given: str = "") -> str:
        """Return the language that is given, otherwise that in the file's or folder's name. Raises EvaluationError without one."""
        if given:
            return language_code(given)
        for name in (self.path.stem, self.path.absolute().parent.name):
            for piece in re.split("[^a-z]+", name.lower()):
                if piece in ("en", "zh", "ja", "ko", "de", "es", "fr", "it", "ru"):
                    return piece
        raise EvaluationError(f"{self.path}: the name states no language; add ,language=CODE")

    def _names(self) -> list[str]:
        if self._is_parquet:
            import pyarrow as pa
            import pyarrow.parquet as pq

            try:
                return list(pq.read_schema(self.path).names)
            except (OSError, pa.ArrowException) as error:
                raise EvaluationError(f"{self.path} cannot be read ({one_line(error)}); fetch it again") from None
        first = next(self._lines(), None)
        return list(first[1]) if first else []

    def _lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, line in read_lines(self.path):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise EvaluationError(f"{self.path}, line {number}: {error}") from None
            if not isinstance(row, dict):
                raise EvaluationError(f"{self.path}, line {number}: not an object")
            yield number, row

    def _clip(self, value: Any, root: Path) -> Path:
        data = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(data, bytes) and data:
            return keep_clip(data, ending_of(data), root)
        name = value.get("path") if isinstance(value, dict) else value
        if not isinstance(name, str) or not name:
            raise EvaluationError("no audio")
        path = find_file(self.path.parent, name)
        if path is None:
            raise EvaluationError(f"no audio file at {self.path.parent / name}")
        return path


def read(argument: str, *, pick: Pick, language: str = "", name: str = "", cache: str | None = None) -> list[Item]:
    """Return the items of a Parquet or JSONL file, or of the Parquet files of a folder, with the columns of the hub's copies of
    Seed-TTS-Eval and CV3-Eval: text or target_text, prompt_text, prompt_audio, id.

    name: the list's name; default: the file's or folder's.
    """
    path = Path(argument).expanduser()
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise EvaluationError(f"no Parquet file at {path}")
    return read_files(files, pick, language, name or path.stem, cache)


def read_files(files: Sequence[Path], pick: Pick, language: str, name: str, cache: str | None) -> list[Item]:
    """Return the items of some files as one list."""
    items: list[Item] = []
    places: dict[int, tuple[TableFile, int]] = {}
    for table in map(TableFile, files):
        text, words, clip, key = (table.column(names) for names in (_TEXT, _WORDS, _CLIP, _ID))
        if text is None:
            raise EvaluationError(f"{table.path} has no column {' or '.join(_TEXT)}")
        code = table.language(language)
        for number, row in table.rows([clip] if clip else []):
            if not str(row.get(text) or "").strip():
                raise EvaluationError(f"{table.path}, row {number}: {text} is empty")
            said = str(row.get(words) or "") if words else ""
            label = str(row.get(key) or number) if key else str(number)
            items.append(
                Item(str(row[text]), code, Path(label).stem if is_audio(label) else label, name, reference_text=said)
            )
            if clip:
                places[id(items[-1])] = table, number
    return with_clips(pick(items), places, _CLIP, "reference", cache)


def with_clips(
    chosen: Sequence[Item],
    places: dict[int, tuple[TableFile, int]],
    columns: Sequence[str],
    field: str,
    cache: str | None,
) -> list[Item]:
    """Return items with their audio in the field `reference` or `human`. places: (table, row) by the `id()` of an item."""
    wanted: dict[Path, tuple[TableFile, set[int]]] = {}
    for item in chosen:
        if id(item) in places:
            table, number = places[id(item)]
            wanted.setdefault(table.path, (table, set()))[1].add(number)
    clips: dict[tuple[Path, int], Path] = {}
    for path, (table, numbers) in wanted.items():
        column = table.column(columns)
        if column:
            found = table.clips(column, numbers, cache_root(cache))
            clips |= {(path, number): clip for number, clip in found.items()}
    done = []
    for item in chosen:
        spot = places.get(id(item))
        clip = clips.get((spot[0].path, spot[1])) if spot else None
        done.append(replace(item, **{field: clip}) if clip else item)  # type: ignore[arg-type]
    return done
