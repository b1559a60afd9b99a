"""Lists of recordings that the user wrote: file lists and manifests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from catalogs.files import one_line
from catalogs.urls import is_location
from catalogs.vocabulary.rights import NO_RIGHTS, RIGHTS_NAMES, Rights, RightsError, rights_of
from pipeline.inputs.csv_rows import TableError, csv_rows
from pipeline.inputs.transcripts.formats import TranscriptError
from pipeline.inputs.transcripts.objects import spans_of
from pipeline.records import TimedText
from pipeline.runtime.paths import bare, beside_list, local_path
from pipeline.stage import StageError

MANIFESTS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")

#: Columns of a manifest, each with the names that other tools use for it; the first one found counts. `RIGHTS_NAMES` are more.
COLUMNS: dict[str, tuple[str, ...]] = {
    "path": (
        *("path", "audio_filepath", "audio_path", "audio_file", "filepath", "file_path"),
        *("file", "filename", "file_name", "wav", "wav_path", "audio"),
    ),
    "session": ("session", "session_id"),
    "language": ("language", "lang", "locale"),
    "text": ("text", "transcript", "transcription", "sentence"),
}
#: Columns that describe parts of a file.
_PARTS = ("segments", "words", "start", "start_s", "offset", "begin", "end", "end_s", "stop", "duration", "duration_s")


class SourceError(StageError):
    """A source argument that cannot be used; the message names it and says what to give instead."""


class MissingLibraryError(SourceError):
    """A source needs a library that is not installed, or a protocol that does not exist: the run stops before it starts."""


@dataclass(frozen=True, slots=True)
class ListedRecording:
    """One recording of a list: its path, its name in the list, and what the list states about it."""

    path: str
    name: str
    session: str | None = None
    language: str | None = None
    text: str | None = None
    rights: Rights = NO_RIGHTS
    spans: tuple[TimedText, ...] = ()
    location: str | None = None
    """Its URL, if the list has one instead of a path."""


def _entry(folder: Path, written: str) -> ListedRecording:
    """Return the recording that a list in `folder` gives as a path or URL."""
    place = beside_list(written, folder)
    if is_location(place):
        return ListedRecording(bare(place), bare(place), location=place)
    return ListedRecording(str(Path(place)), Path(local_path(written)).as_posix())


def read_file_list(path: Path) -> Iterator[ListedRecording]:
    """Yield one recording per line: a path (relative to the list's own folder) or a URL. Empty lines and lines that begin
    with # are skipped."""
    for line in _text(path).split("\n"):
        if line.strip() and not line.startswith("#"):
            yield _entry(path.parent, line.strip())


def read_manifest(path: Path, notices: list[str] | None = None) -> Iterator[ListedRecording]:
    """Yield one recording per row: a path (relative to the manifest's folder) or a URL, with session, language, text and
    rights (license, attribution, consent ...) if they are given.

    A row with a start and an end (or `offset` and `duration`), in seconds, gives the text of that part of its file. All
    such rows of one file are one entry. `segments`, a list of objects with start, end and text, does the same in one row. A
    message about columns that are not used is added to `notices`. Raises SourceError for a manifest that cannot be read, a
    row without a path, times that are impossible, and a consent that is not one of the known grounds.
    """
    parts: dict[str, tuple[ListedRecording, list[TimedText]]] = {}
    for number, row in enumerate(_rows(path), start=1):
        if number == 1 and notices is not None and (line := _unused(path, row)):
            notices.append(line)
        values = {column: _first(row, names) for column, names in COLUMNS.items()}
        name = values.pop("path")
        if name is None:
            raise SourceError(
                f"{path}, row {number}: a manifest needs a `path` in every row (or {', '.join(COLUMNS['path'][1:])}; "
                f"columns here: {', '.join(row)})"
            )
        entry = replace(
            _entry(path.parent, name),
            session=values["session"],
            language=values["language"],
            text=values["text"],
        )
        try:
            entry = replace(entry, rights=rights_of(row, "manifest"))
            spans = row_spans(row)
        except (TranscriptError, RightsError) as error:
            raise SourceError(f"{path}, row {number}: {error}") from None
        if spans:
            parts.setdefault(name, (entry, []))[1].extend(spans)
        else:
            yield entry
    for entry, spans_of_file in parts.values():
        spans = tuple(sorted(spans_of_file, key=lambda span: (span.start_s, span.end_s)))
        yield replace(entry, text=" ".join(span.text for span in spans), spans=spans)


def row_spans(row: Mapping[str, Any]) -> tuple[TimedText, ...]:
    """Return the timed texts that a row gives for parts of its file; empty if it describes the whole file. Raises
    TranscriptError for impossible times."""
    listed = row.get("segments")
    if isinstance(listed, str) and listed.lstrip().startswith("["):
        try:
            listed = json.loads(listed)
        except json.JSONDecodeError as error:
            raise TranscriptError(f"`segments` is not a JSON list ({error.msg})") from None
    if isinstance(listed, list) and listed:
        return spans_of(listed).spans
    if _first(row, ("start", "start_s", "offset", "begin")) is None or _first(row, COLUMNS["text"]) is None:
        return ()
    return spans_of({**row, "text": _first(row, COLUMNS["text"]), "segments": None, "words": None}).spans


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    values = (row.get(name) for name in names)
    return next(
        (str(value) for value in values if value not in (None, "") and not isinstance(value, dict | list)), None
    )


def _unused(path: Path, row: Mapping[str, Any]) -> str:
    """Return a message about the columns of a manifest that are not used; empty if there are none."""
    known = {name for names in (*COLUMNS.values(), *RIGHTS_NAMES.values()) for name in names} | set(_PARTS)
    unused = [name for name in row if name not in known]
    if not unused:
        return ""
    used = ", ".join((*COLUMNS, *RIGHTS_NAMES, "start", "end", "segments"))
    return f"{path}: columns that are not used: {', '.join(unused)} (used are {used}, and usual other names of these)"


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            yield from pq.read_table(path).to_pylist()
        except (pa.ArrowInvalid, OSError) as error:
            raise SourceError(f"{path} is not a readable Parquet file: {one_line(error)}") from None
    elif suffix in (".csv", ".tsv"):
        comma = suffix == ".csv"
        try:
            # Quotes have no meaning in a .tsv (Common Voice has sentences with a single quote).
            yield from csv_rows(_text(path), "," if comma else "\t", quoted=comma)
        except TableError as error:
            raise SourceError(f"{path}, {error}; correct the table") from None
    else:
        # Not splitlines(): it would also split at U+2028 and U+0085, which a name or a sentence may hold.
        for number, line in enumerate(_text(path).split("\n"), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise SourceError(f"{path}, line {number}: not JSON, one object a line ({error.msg})") from None
            if not isinstance(row, dict):
                raise SourceError(f"{path}, line {number}: expected an object with a `path`")
            yield row


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise SourceError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}".lower()) from None
