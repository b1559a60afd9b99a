"""The rows of an annotator's pass as descriptions, and back: the Parquet side of `annotators.verification.verify`."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from annotators.rows import description_columns, description_path
from annotators.schema import Attributes, Caption, VoiceDescription
from annotators.verification.verdicts import Check, Verdict
from catalogs.corpus.commit import corpus_info, write_in_corpus
from catalogs.corpus.damage import reading
from catalogs.corpus.reader import Corpus
from catalogs.corpus.row_files import parquet_bytes
from catalogs.corpus.schema import CHECKS, DESCRIPTIONS, INDEX, fill, required
from catalogs.vocabulary.voices import REGISTERS


@dataclass(frozen=True)
class Unit:
    """One unit: its kept segments (INDEX columns) by id, and the annotator's rows for them."""

    name: str
    path: Path
    """File of the annotator's rows."""
    segments: Mapping[str, dict[str, Any]]
    rows: list[dict[str, Any]]
    metadata: dict[bytes, bytes] | None
    stamp: tuple[int, int]
    """State of the file before it was read."""


def described_units(corpus: Corpus, annotator: str, columns: tuple[str, ...]) -> Iterator[Unit]:
    """Yield the units that an annotator has described. columns: those of the segments that are read, beside their place."""
    names = tuple(dict.fromkeys(("segment_id", "shard", "row", *columns)))
    for part in corpus.kept_parts(names):
        for shard, found in groupby(part.to_pylist(), key=lambda row: row["shard"]):
            segments = {row["segment_id"]: row for row in found}
            name = Path(shard or "").name.split(".")[0]
            path = description_path(corpus.path, annotator, name)
            if not path.is_file():
                continue
            yield _unit(name, path, segments)


def _unit(name: str, path: Path, segments: Mapping[str, dict[str, Any]]) -> Unit:
    stamp = _stamp(path)
    with reading(path):
        table = _read(path)
    return Unit(name, path, segments, table.to_pylist(), table.schema.metadata, stamp)


def read_again(unit: Unit) -> Unit | None:
    """Return the unit with the rows that its file has now; None if they are the same."""
    return None if _stamp(unit.path) == unit.stamp else _unit(unit.name, unit.path, unit.segments)


def _stamp(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_mtime_ns, state.st_ino


def passes_to_verify(root: str | Path) -> list[str]:
    """Return the annotators whose descriptions are worth comparing: all but `acoustic`, which writes what is measured.

    Raises CorpusError for a folder that is not a corpus, and ValueError if nobody else has described it.
    """
    corpus_info(root)
    base = Path(root) / "annotations"
    folders = sorted(path for path in base.glob("*") if path.is_dir() and path.name != "acoustic")
    found = [folder.name for folder in folders if any(map(_holds_descriptions, folder.glob("*/*.parquet")))]
    if not found:
        raise ValueError(
            f"{root} has no descriptions to compare with its measures: run voxmill describe with another annotator than acoustic"
        )
    return found


def _holds_descriptions(path: Path) -> bool:
    import pyarrow.parquet as pq

    # The files of an annotator are in folders named by the first two digits of the unit; `checks` has those of a comparison.
    if len(path.parent.name) != 2:
        return False
    with reading(path):
        return required("descriptions") <= set(pq.read_schema(path).names)


def checks_path(root: Path, annotator: str, unit: str) -> Path:
    """Return the path of a unit's checks."""
    return root / "annotations" / annotator / "checks" / unit[:2] / f"{unit}.parquet"


def original_of(row: Mapping[str, Any]) -> VoiceDescription | None:
    """Return the description as the annotator gave it; None if the row has none or it is outside the vocabularies."""
    if row["status"] != "ok":
        return None
    try:
        if row.get("answered"):
            return VoiceDescription.model_validate_json(row["answered"])
        given = row.get("labels") or row["attributes"] or {}
        values = {name: value for name, value in given.items() if value is not None and name in Attributes.model_fields}
        attributes = Attributes(**values, evidence=row.get("evidence") or "")
        return VoiceDescription(attributes=attributes, captions=tuple(_captions(row)))
    except (ValidationError, ValueError, TypeError):
        return None


def _captions(row: Mapping[str, Any]) -> Iterator[Caption]:
    if row.get("captions"):
        yield from (Caption(**caption) for caption in row["captions"])
        return
    for register in REGISTERS:
        if row.get(register):
            yield Caption(register, row.get("language") or "en", row[register])


def verified(row: Mapping[str, Any], original: VoiceDescription, verdict: Verdict, text: str) -> dict[str, Any]:
    """Return a row with the verdict's description, and the annotator's own beside it if they differ.

    Emphasized words that the transcript lacks are left out. text: the transcript.
    """
    now = verdict.description or VoiceDescription(attributes=original.attributes)
    said = spoken_words(now.attributes.emphasis, text)
    is_changed = verdict.verdict != "agree" or said != now.attributes.emphasis
    now = now.model_copy(update={"attributes": now.attributes.model_copy(update={"emphasis": said})})
    return {
        **row,
        **description_columns(now),
        "language": row.get("language"),
        "verdict": verdict.verdict,
        "disagreements": list(verdict.contradicted),
        "answered": original.model_dump_json() if is_changed else None,
    }


def spoken_words(words: Sequence[str], text: str) -> tuple[str, ...]:
    """Return those of the words that a transcript has, letter by letter; all of them without a transcript."""

    def letters(one: str) -> str:
        return "".join(
            sign for sign in unicodedata.normalize("NFKC", one).casefold() if sign.isalnum() or sign.isspace()
        )

    there = " ".join(letters(text).split())
    return tuple(word for word in words if not there or " ".join(letters(word).split()) in there)


def write_unit(
    root: Path, annotator: str, unit: Unit, rows: list[dict[str, Any]], checks: list[dict[str, Any]]
) -> None:
    """Replace a unit's checks and descriptions, each atomically; a file that would not change is left alone.

    The checks come first: after a kill between the two, the next pass writes both.
    """
    table = pa.Table.from_pylist(checks, schema=CHECKS)
    _write(root, checks_path(root, annotator, unit.name), table)
    _write(root, unit.path, pa.Table.from_pylist(rows, schema=DESCRIPTIONS.with_metadata(unit.metadata)))


def check_rows(segment: str, annotator: str, checks: tuple[Check, ...]) -> list[dict[str, Any]]:
    """Return checks as rows of CHECKS."""
    return [{"segment_id": segment, "annotator": annotator, **asdict(check)} for check in checks]


def segment_columns(*columns: str) -> tuple[str, ...]:
    """Return those of the columns that an index has: an expert of another package may name others."""
    return tuple(name for name in columns if name in INDEX.names)


def _read(path: Path) -> pa.Table:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        found = file.read()
    return fill(found, DESCRIPTIONS).replace_schema_metadata(found.schema.metadata)


def _write(root: Path, path: Path, table: pa.Table) -> None:
    data = parquet_bytes(table)
    if not path.is_file() or path.read_bytes() != data:
        write_in_corpus(root, path, data)
