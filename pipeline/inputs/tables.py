"""Tables with an audio column: Parquet files and folders written by `datasets`' `save_to_disk`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from catalogs.vocabulary.rights import rights_of
from pipeline.inputs.manifests import MissingLibraryError, SourceError, row_spans
from pipeline.inputs.members import PackedRecording, Skipped, climbs, known_facts, redacted_line, too_large
from pipeline.inputs.source_kind import Listing, SourceKind
from pipeline.inputs.store_access import Stores
from pipeline.inputs.transcripts.formats import TranscriptError
from pipeline.records import Source

_ROWS_AT_ONCE = 16


def is_dataset(folder: Path) -> bool:
    """Return True if `datasets` wrote this folder."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def audio_column(path: Path) -> str | None:
    """Return the column of a Parquet file that holds audio as {bytes, path}, as `datasets` writes it; None if there is
    none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError):
        return None
    for field in schema:
        if pa.types.is_struct(field.type) and {"bytes", "path"} <= {child.name for child in field.type}:
            return str(field.name)
    return None


class _Table(SourceKind):
    """A table on this machine. The location of a row has the form `rows:///data/a.parquet#row=3`."""

    scheme = "rows"

    def container_of(self, location: str) -> str | None:
        return location.partition("#")[0] if location.startswith("rows://") else None

    def file_name(self, location: str) -> str:
        return urlsplit(location).path

    def read(
        self, container: str, sources: Sequence[Source], stores: Stores
    ) -> Iterator[tuple[Source, Iterator[bytes]]]:
        by_location = {source.path: source for source in sources}
        for location, data in read_rows(container, by_location):
            yield by_location[location], iter([data])


class ParquetTable(_Table):
    """A Parquet file with an audio column."""

    def recognizes(self, argument: str) -> bool:
        path = Path(argument)
        return path.suffix.lower() == ".parquet" and path.is_file() and audio_column(path) is not None

    def list(self, argument: str, title: str, listing: Listing) -> Iterator[PackedRecording]:
        yield from list_parquet(Path(argument), title, listing.aside)


class DatasetFolder(_Table):
    """A folder that `datasets` wrote."""

    def recognizes(self, argument: str) -> bool:
        return is_dataset(Path(argument))

    def list(self, argument: str, title: str, listing: Listing) -> Iterator[PackedRecording]:
        yield from list_dataset(Path(argument), title, listing.aside)


def list_parquet(path: Path, title: str, aside: Skipped) -> Iterator[PackedRecording]:
    """Yield the rows of a Parquet file with an audio column. Raises SourceError if it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = audio_column(path)
    assert column is not None
    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=_ROWS_AT_ONCE):
            for row in batch.to_pylist():
                location = f"rows://{quote(str(path))}#row={number}"
                yield _row(location, f"{title}/{number:08d}", row, column, path.parent, aside)
                number += 1
    except (pa.ArrowException, OSError) as error:
        if number == 0:
            raise SourceError(f"{path}: not a Parquet file that can be read ({redacted_line(error)})") from None
        yield PackedRecording(
            str(path), title, fault=f"the file is damaged after this many rows: {number} ({redacted_line(error)})"
        )


def list_dataset(path: Path, title: str, aside: Skipped) -> Iterator[PackedRecording]:
    """Yield the rows of a folder that `datasets` wrote, split by split. Raises SourceError if it cannot be read."""
    for split, dataset, column in _splits(path):
        prefix = f"{title}/{split}" if split else title
        of_all = rights_of({"license": dataset.info.license}, "sidecar")
        for number in range(len(dataset)):
            location = f"rows://{quote(str(path))}#split={split}&row={number}"
            row = _row(location, f"{prefix}/{number:08d}", dataset[number], column, path, aside)
            yield replace(row, rights=row.rights.over(of_all))


def read_rows(container: str, locations: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (location, audio) of rows of one table, in the table's order. The table is opened once and each part of it read
    once.

    `container` is the location without its row. Raises OSError if the table has changed since it was listed.
    """
    path = Path(unquote(urlsplit(container).path))
    wanted: dict[tuple[str, int], str] = {}
    for location in locations:
        where = parse_qs(urlsplit(location).fragment, keep_blank_values=True)
        wanted[(where.get("split", [""])[0], int(where["row"][0]))] = location
    rows = _dataset_rows(path, wanted) if path.is_dir() else _parquet_rows(path, sorted(row for _, row in wanted))
    for split, number, audio in rows:
        yield wanted[(split, number)], bytes(audio["bytes"])


def _dataset_rows(path: Path, wanted: Iterable[tuple[str, int]]) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    numbers: dict[str, list[int]] = {}
    for split, number in sorted(wanted):
        numbers.setdefault(split, []).append(number)
    for split, dataset, column in _splits(path):
        for number in numbers.get(split, ()):
            if number < len(dataset):
                yield split, number, dataset[number][column]


def _parquet_rows(path: Path, numbers: list[int]) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    import pyarrow.parquet as pq

    column, wanted = audio_column(path), set(numbers)
    if column is None:
        raise OSError("it has no audio column any more")
    file = pq.ParquetFile(path)
    first = 0
    for group in range(file.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        here = [number for number in numbers if first <= number < first + count]
        at = first
        first += count
        if not here:
            continue
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, row_groups=[group], columns=[column]):
            for place in range(batch.num_rows):
                if at + place in wanted:
                    yield "", at + place, batch.column(0)[place].as_py()
            at += batch.num_rows
            if at > here[-1]:
                break


def _splits(path: Path) -> Iterator[tuple[str, Any, str]]:
    """Yield (split or "", rows with undecoded audio, the audio's column) of a folder that `save_to_disk` wrote."""
    try:
        import datasets
    except ImportError:
        raise MissingLibraryError(
            f"{path}: a `datasets` folder needs that package: pip install 'voxmill[hf]'"
        ) from None
    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:
        raise SourceError(f"{path}: not a dataset that can be read ({redacted_line(error)})") from None
    for split, dataset in loaded.items() if isinstance(loaded, datasets.DatasetDict) else [("", loaded)]:
        columns = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.Audio)]
        if not columns:
            raise SourceError(f"{path}: the dataset has no Audio column (columns: {', '.join(dataset.column_names)})")
        yield str(split), dataset.cast_column(columns[0], datasets.Audio(decode=False)), columns[0]


def _row(
    location: str, name: str, row: Mapping[str, Any], column: str, folder: Path, aside: Skipped
) -> PackedRecording:
    audio = row[column] or {}
    original = audio.get("path") or ""
    name += PurePosixPath(original).suffix
    facts = known_facts(row, "manifest", name, aside.notices)
    try:
        spans = row_spans(row)
    except TranscriptError as error:
        aside.notices.append(f"{name}: its transcript by time was left out: {error}")
        spans = ()
    if spans:
        facts |= {"text": " ".join(span.text for span in spans), "spans": spans}
    data = audio.get("bytes")
    if data is not None:
        if len(data) > aside.largest_bytes:
            return PackedRecording(location, name, fault=too_large(len(data), aside))
        return PackedRecording(location, name, len(data), hashlib.sha256(data).hexdigest(), **facts)
    if climbs(original):
        return PackedRecording(
            location, name, fault=f"its path {original!r} is not below the table's folder; move the file there"
        )
    file = folder / original
    if original and file.is_file():
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return PackedRecording(str(file), name, file.stat().st_size, digest, **facts)
    return PackedRecording(location, name, fault="the row holds neither the audio's bytes nor a path that is there")
