"""Lists that hold the transcripts of a whole folder: LibriSpeech's, LJSpeech's, and the metadata of `datasets`' audio folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from pipeline.inputs.csv_rows import csv_rows
from pipeline.inputs.transcripts.formats import TranscriptError

#: Names of lists beside recordings, or in the folder above them. Any name that ends in .trans.txt is a list as well.
NAMES = ("metadata.csv", "metadata.tsv", "metadata.jsonl")
_FILE = ("file_name", "path", "audio_filepath", "file", "wav", "filename", "id")
_TEXT = ("text", "transcription", "transcript", "sentence", "normalized_text")


def read_list(name: str, text: str) -> dict[str, str]:
    """Return {recording: transcript} of a list, by path below the list's folder and by the path without its ending.

    Raises TranscriptError if it is not such a list (metadata may describe other things).
    """
    if name.endswith(".trans.txt"):
        rows = [tuple(line.split(maxsplit=1)) for line in text.split("\n") if line.strip()]
        pairs = [(row[0], row[1]) for row in rows if len(row) == 2]
    elif name.endswith(".jsonl"):
        pairs = _named([json.loads(line) for line in text.split("\n") if line.strip()])
    elif "|" in text.split("\n", 1)[0]:
        # LJSpeech: id|as written|with numbers spelled out. Quotes have no meaning: a sentence may hold a single one.
        rows = [tuple(line.split("|")) for line in text.split("\n") if line.strip()]
        pairs = [(row[0], row[1]) for row in rows if len(row) in (2, 3)]
    else:
        mark = "\t" if name.endswith(".tsv") else ","
        pairs = _named(list(csv_rows(text, mark, quoted=True)))
    if not pairs:
        raise TranscriptError("it names no files with their text")
    found: dict[str, str] = {}
    for path, said in pairs:
        place = PurePosixPath(path)
        # An exact name takes precedence over a name without its ending.
        for key in (place.as_posix(), place.with_suffix("").as_posix() if place.suffix else None):
            if key:
                found.setdefault(key, " ".join(said.split()))
    return found


def _named(rows: list[Any]) -> list[tuple[str, str]]:
    """Return (file, text) of rows that have both."""
    pairs = []
    for row in rows:
        if not isinstance(row, Mapping):
            raise TranscriptError("its lines are not objects")
        path, said = (next((row[name] for name in names if row.get(name)), None) for names in (_FILE, _TEXT))
        if path and said:
            pairs.append((str(path), str(said)))
    return pairs
