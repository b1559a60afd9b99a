"""InstructTTSEval: a text and three instructions a row (APS, DSD, RP), and a recording of the text that fits them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.errors import EvaluationError
from evaluation.items import Item
from evaluation.lists.base import Pick
from evaluation.lists.tables import TableFile, with_clips

KINDS = ("APS", "DSD", "RP")
"""Acoustic parameters, a description of the style, a role."""
_DROPPED = str.maketrans("", "", "()\r\n")
"""The instruction stands in parentheses before the text, so it cannot hold any; upstream also removes newlines."""
_RECORDING = ("reference_audio",)


def read(argument: str, *, pick: Pick, language: str = "", cache: str | None = None) -> list[Item]:
    """Return one item per row and kind of `PATH` or `PATH:APS` or `PATH:APS+RP`. PATH: a JSONL or Parquet file, or their folder.

    The recording is `human`: it is the ceiling of the score. Embedded audio is stored in the cache by its digest.
    language: default: `en` or `zh` in the file's name. Raises EvaluationError with the row of a fault.
    """
    path, kinds = _split(argument)
    files = sorted([*path.rglob("*.parquet"), *path.rglob("*.jsonl")]) if path.is_dir() else [path]
    if not files:
        raise EvaluationError(f"{path} has no Parquet or JSONL file of InstructTTSEval")
    return read_files(files, kinds, pick, language, cache)


def read_files(files: Sequence[Path], kinds: Sequence[str], pick: Pick, language: str, cache: str | None) -> list[Item]:
    """Return the items of some files, in order."""
    items: list[Item] = []
    places: dict[int, tuple[TableFile, int]] = {}
    for table in map(TableFile, files):
        recording = table.column(_RECORDING)
        for name in ("text", *kinds):
            if not table.column([name]):
                raise EvaluationError(f"{table.path} has no column {name}; it is not InstructTTSEval")
        code = table.language(language)
        for number, row in table.rows(_RECORDING):
            try:
                added = _items(row, kinds, code, number)
            except EvaluationError as error:
                raise EvaluationError(f"{table.path}, row {number}: {error}") from None
            items += added
            if recording:
                places |= {id(item): (table, number) for item in added}
    return with_clips(pick(items), places, _RECORDING, "human", cache)


def plain_instruction(text: str) -> str:
    """Return an instruction without `(`, `)` and newlines, as upstream's protocol has it."""
    return text.translate(_DROPPED).strip()


def _items(row: dict[str, Any], kinds: Sequence[str], code: str, number: int) -> list[Item]:
    text = str(row.get("text") or "").strip()
    if not text:
        raise EvaluationError("text is empty")
    found = []
    for kind in kinds:
        value = row.get(kind)
        # The judge's input has an object per kind; the data set has the text.
        value = value.get("instruction") if isinstance(value, dict) else value
        instruction = plain_instruction(str(value or ""))
        if not instruction:
            raise EvaluationError(f"{kind} is empty")
        name = f"{row.get('id') or number}-{kind}"
        found.append(Item(text, code, name, f"instruct-{code}", instruction=instruction, groups={"kind": kind}))
    return found


def _split(argument: str) -> tuple[Path, tuple[str, ...]]:
    path = Path(argument).expanduser()
    if path.exists():
        return path, KINDS
    base, colon, wanted = argument.rpartition(":")
    if not colon or not Path(base).expanduser().exists():
        raise EvaluationError(f"no file or folder at {argument}")
    kinds = tuple(wanted.upper().split("+"))
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise EvaluationError(f"no kind of instruction {unknown[0]!r}; known: {', '.join(KINDS)}")
    return Path(base).expanduser(), kinds
