"""Columns of a table: their names, the kinds of values that they may hold, and the columns that a run adds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyarrow as pa

from pipeline.inputs.manifests import COLUMNS
from pipeline.synthesis.table.read_table import SpeechTable, SpeechTableError

NAMES: dict[str, tuple[str, ...]] = {
    "text": ("text", "target_text", "infer_text", *COLUMNS["text"][1:]),
    "description": ("description", "control", "instruct", "instruction"),
    "reference": ("reference", "reference_audio", "ref_audio", "reference_wav_path"),
    "prompt": ("prompt", "prompt_audio", "prompt_wav_path"),
    "prompt_text": ("prompt_text",),
    "language": COLUMNS["language"],
    "seed": ("seed",),
    "cfg": ("cfg", "cfg_value"),
    "id": ("id", "utt", "utt_id", "uttid", "audio_id"),
}
"""What a row may say, each with the names that other tools use for it; the first one that is a column counts."""

RESULTS: dict[str, pa.DataType] = {
    "row": pa.int64(),
    "id": pa.string(),
    "voice": pa.string(),
    "description": pa.string(),
    "audio": pa.string(),
    "seconds": pa.float64(),
    "sample_rate": pa.int32(),
    "ending": pa.string(),
    "attempts": pa.int32(),
    "seed": pa.int64(),
    "status": pa.string(),
    "error": pa.string(),
    "model": pa.string(),
}
"""Columns that a run adds. If the table has a column of that name, ours has `speech_` before it."""
_CROSSED = ("voice", "description")


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are used: what they say -> their name in the table."""

    names: dict[str, str]

    def value(self, row: dict[str, object], what: str) -> object:
        """Return what a row says; None if it is absent, blank or NaN."""
        found = row.get(self.names[what]) if what in self.names else None
        blank = (isinstance(found, str) and not found.strip()) or (isinstance(found, float) and math.isnan(found))
        return None if blank else found

    def text(self, row: dict[str, object], what: str) -> str | None:
        """Return what a row says as text; None if it is absent or blank."""
        found = self.value(row, what)
        return None if found is None else str(found)


def find_columns(table: SpeechTable, needed: str, used: tuple[str, ...] = tuple(NAMES)) -> Columns:
    """Return the columns of a table. Raises SpeechTableError without the one that is `needed`, and for a type that is wrong."""
    schema = table.schema
    names = {what: name for what in used if (name := next((n for n in NAMES[what] if n in schema.names), None))}
    if needed not in names:
        others = ", ".join(NAMES[needed][1:])
        here = ", ".join(schema.names) or "none"
        raise SpeechTableError(
            f"{table.path} has no column {needed}{f' (or {others})' if others else ''}; its columns: {here}"
        )
    for what, name in names.items():
        kind = schema.field(name).type
        if not _fits(kind, what):
            wanted = "numbers" if what in ("seed", "cfg") else "text" if what != "id" else "text or whole numbers"
            raise SpeechTableError(f"{table.path}: the column {name} holds {kind}; it must hold {wanted}")
    return Columns(names)


def _fits(kind: pa.DataType, what: str) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return True
    whole, number = pa.types.is_integer(kind), pa.types.is_floating(kind)
    return (what == "id" and whole) or (what in ("seed", "cfg") and (whole or number))


def result_names(schema: pa.Schema, voices: bool, descriptions: bool) -> dict[str, str]:
    """Return the columns that a run adds to a table: what they say -> their name.

    Raises SpeechTableError if the table has both names of one, e.g. because it is the result of a run on a result.
    """
    crossed = {"voice": voices, "description": descriptions}
    found = {}
    for what in RESULTS:
        if what in _CROSSED and not crossed[what]:
            continue
        name = what if what not in schema.names else f"speech_{what}"
        if name in schema.names:
            raise SpeechTableError(f"the table has the columns {what} and {name}: rename one, for the results")
        found[what] = name
    return found


def result_schema(schema: pa.Schema, names: dict[str, str]) -> pa.Schema:
    """Return the columns of the result: those of the table, then those that a run adds."""
    added = [pa.field(name, RESULTS[what]) for what, name in names.items()]
    return pa.schema([*schema.remove_metadata(), *added])
