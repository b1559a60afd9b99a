"""Tables as streams of Arrow batches: Parquet with its types, CSV and TSV as text, JSON lines with inferred types."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.files import file_sha256, one_line
from pipeline.inputs.csv_rows import TableError, csv_rows

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".json")
BATCH = 1024
"""Rows that are read together."""


class SpeechTableError(ValueError):
    """A table that cannot be used; the message is one line that names the fault and what to do."""


@dataclass(frozen=True)
class SpeechTable:
    """A table on this machine. Only one batch of it is in memory."""

    path: Path

    @property
    def folder(self) -> Path:
        """The folder that paths in the table are relative to."""
        return self.path.absolute().parent

    @cached_property
    def digest(self) -> str:
        """The sha256 of the file."""
        return file_sha256(self.path)

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns, without the file's metadata. Types of JSON lines are those that hold all values; mixed values are text.

        Raises SpeechTableError.
        """
        found = self._schema()
        if len(set(found.names)) < len(found.names):
            raise SpeechTableError(f"{self.path} has two columns of the same name")
        return found

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order. Raises SpeechTableError at a row that cannot be read."""
        schema = self.schema
        if self.path.suffix.lower() == ".parquet":
            yield from self._parquet(schema)
            return
        for rows in _groups(self._dicts()):
            try:
                yield pa.RecordBatch.from_arrays([_array(rows, field) for field in schema], schema=schema)
            except pa.ArrowException as error:
                raise SpeechTableError(f"{self.path} has values of different kinds: {one_line(error)}") from None

    def _schema(self) -> pa.Schema:
        if self.path.suffix.lower() == ".parquet":
            import pyarrow.parquet as pq

            with self._reading_parquet():
                return pq.read_schema(self.path).remove_metadata()
        if self.path.suffix.lower() in (".csv", ".tsv"):
            first = next(self._dicts(), None)
            if first is None:
                raise SpeechTableError(f"{self.path} has no rows")
            return pa.schema([(name, pa.string()) for name in first])
        types: dict[str, pa.DataType] = {}
        for rows in _groups(self._dicts()):
            for name in dict.fromkeys(name for row in rows for name in row):
                types[name] = _wider(types.get(name, pa.null()), _type_of([row.get(name) for row in rows]))
        return pa.schema(list(types.items()))

    def _parquet(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        import pyarrow.parquet as pq

        with self._reading_parquet(), pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(BATCH):
                yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)

    def _reading_parquet(self) -> _ReadingParquet:
        return _ReadingParquet(self.path)

    def _dicts(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of a text file, one after the other."""
        try:
            suffix = self.path.suffix.lower()
            # "": the CSV reader joins quoted lines itself. JSON lines end with \n alone.
            with self.path.open(encoding="utf-8-sig", newline="" if suffix in (".csv", ".tsv") else "\n") as file:
                if suffix in (".csv", ".tsv"):
                    comma = suffix == ".csv"
                    # Quotes have no meaning in a .tsv, as in manifests.
                    yield from csv_rows(file, "," if comma else "\t", quoted=comma)
                else:
                    yield from self._objects(file)
        except UnicodeDecodeError:
            raise SpeechTableError(f"{self.path} is not UTF-8 text: save it as UTF-8") from None
        except TableError as error:
            raise SpeechTableError(f"{self.path}, {error}; correct the table") from None
        except OSError as error:
            raise SpeechTableError(f"{self.path} cannot be read: {error.strerror or one_line(error)}") from None

    def _objects(self, lines: Iterator[str]) -> Iterator[dict[str, Any]]:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                json.dumps(row, ensure_ascii=False).encode()
            except json.JSONDecodeError as error:
                raise SpeechTableError(
                    f"{self.path}, line {number}: not JSON, one object a line ({error.msg})"
                ) from None
            except UnicodeEncodeError:
                raise SpeechTableError(f"{self.path}, line {number}: half of a surrogate pair is not text") from None
            if not isinstance(row, dict):
                raise SpeechTableError(f"{self.path}, line {number}: expected an object with a `text`")
            yield row


class _ReadingParquet:
    """Context manager that turns Arrow's errors into one line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, pa.ArrowException | OSError):
            raise SpeechTableError(f"{self._path} is not a readable Parquet file: {one_line(error)}") from None


def open_table(path: str | Path) -> SpeechTable:
    """Return a table by its path. Raises FileNotFoundError, and SpeechTableError for another kind of file."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise SpeechTableError(f"{path}: a table is a file that ends with one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise FileNotFoundError(f"no table at {path}")
    return SpeechTable(path)


def read_rows_of(table: SpeechTable, limit: int | None = None) -> list[dict[str, Any]]:
    """Return the rows of a small table."""
    return list(islice((row for batch in table.batches() for row in batch.to_pylist()), limit))


def _groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while group := list(islice(rows, BATCH)):
        yield group


def _type_of(values: Sequence[Any]) -> pa.DataType:
    """Return the type that holds these values; text if there is none, or if Parquet does not have it."""
    try:
        found = pa.array(values).type
    except (pa.ArrowException, OverflowError):
        return pa.string()
    return pa.string() if _has_empty_object(found) else found


def _has_empty_object(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind) and not kind.num_fields:
        return True
    return any(_has_empty_object(kind.field(index).type) for index in range(kind.num_fields))


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Return the type that holds the values of both; text if there is none."""
    try:
        fields = [pa.schema([("x", kind)]) for kind in (one, other)]
        return pa.unify_schemas(fields, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return pa.string()


def _array(rows: Sequence[Mapping[str, Any]], field: pa.Field) -> pa.Array:
    values = [row.get(field.name) for row in rows]
    if pa.types.is_string(field.type):
        # Numbers and objects in a column of mixed values: their JSON.
        values = [v if v is None or isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]
    return pa.array(values, field.type)
