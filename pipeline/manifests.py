"""Lists of recordings that a person wrote down: file lists, manifests, and the transcripts that lie beside recordings."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.stage import StageError

MANIFESTS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")

#: Columns of a manifest, each with the names that other tools give it; the first one found counts.
COLUMNS: dict[str, tuple[str, ...]] = {
    "path": ("path", "audio_filepath", "audio_path", "file", "wav"),
    "session": ("session", "session_id"),
    "language": ("language", "lang", "locale"),
    "text": ("text", "transcript", "transcription", "sentence"),
    "license": ("license", "licence"),
}


class SourceError(StageError):
    """A source argument that cannot be used; the message says which and what to give instead."""


@dataclass(frozen=True)
class Entry:
    """One file of a list: where it is, what it is called there, and what the list says of it."""

    path: Path
    name: str
    session: str | None = None
    language: str | None = None
    text: str | None = None
    license: str | None = None


def read_file_list(path: Path) -> Iterator[Entry]:
    """One file a line, relative to the list's own folder; empty lines and lines that begin with # are left out."""
    for line in _text(path).split("\n"):
        if line.strip() and not line.startswith("#"):
            yield Entry(path.parent / line.strip(), Path(line.strip()).as_posix())


def read_manifest(path: Path) -> Iterator[Entry]:
    """One file a row, relative to the manifest's folder, with session, language, text and license where they are given.

    Raises SourceError for a manifest that cannot be read, or a row without a path.
    """
    for number, row in enumerate(_rows(path), start=1):
        values = {column: _first(row, names) for column, names in COLUMNS.items()}
        name = values.pop("path")
        if name is None:
            raise SourceError(
                f"{path}, row {number}: a manifest needs a `path` in every row (columns: {', '.join(row)})"
            )
        yield Entry(path.parent / name, Path(name).as_posix(), **values)


def _first(row: dict[str, Any], names: tuple[str, ...]) -> str | None:
    return next((str(row[name]) for name in names if row.get(name) not in (None, "")), None)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            yield from pq.read_table(path).to_pylist()
        except (pa.ArrowInvalid, OSError) as error:
            raise SourceError(f"{path} is no Parquet file that can be read: {str(error).splitlines()[0]}") from None
    elif suffix in (".csv", ".tsv"):
        # Quotes mean nothing in a .tsv (Common Voice writes sentences with single ones).
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if suffix == ".csv" else csv.QUOTE_NONE
        yield from csv.DictReader(
            io.StringIO(_text(path)), delimiter="," if suffix == ".csv" else "\t", quoting=quoting
        )
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


def text_beside(path: Path) -> tuple[str | None, str | None]:
    """(transcript of `path` from the file with its name and another ending, notice); None for what there is not."""
    for suffix, read in _TRANSCRIPTS.items():
        beside = path.with_suffix(suffix)
        if beside == path or not beside.is_file():
            continue
        try:
            return read(beside), None
        except (UnicodeDecodeError, OSError):
            return None, f"{beside}: this transcript is not UTF-8 text and was left out"
    return None, None


def _plain_text(path: Path) -> str | None:
    data = path.read_bytes()
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    return " ".join(data.decode(encoding).split()) or None


#: Endings of transcripts with what reads them, the best first. Timed ones (.srt, .vtt, .lab, .TextGrid) belong here.
_TRANSCRIPTS: dict[str, Callable[[Path], str | None]] = {".txt": _plain_text}
