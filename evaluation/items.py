"""Items: what a system is asked to say, with the clips, descriptions and groups that go with it.

The columns are those of OmniVoice's lists (`id, text, ref_audio, ref_text, language_id`), and ours: `human_audio`, `instruction`,
`category` and any other text column, which becomes a group. An item is known by the hash of its content, so a list may grow and
nothing is made twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from catalogs.files import file_sha256, one_line, write_atomically
from evaluation.errors import EvaluationError
from evaluation.languages import canonical_language

_ID_LENGTH = 16


@dataclass(frozen=True)
class Item:
    """One text to be spoken.

    `name`: the id in its list. `list_name`: the list, such as `seed-en`. `language`: a code of catalogs.vocabulary.languages.
    `reference` and `reference_text`: a clip of the voice and its words. `human`: a recording of this very text by a person.
    `instruction`: the voice or style in words. `groups`: such as speaker, gender, category; tables and clusters use them.
    """

    text: str
    language: str
    name: str = ""
    list_name: str = ""
    reference: Path | None = None
    reference_text: str = ""
    human: Path | None = None
    instruction: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    language_id: str = ""
    """The language as its list spells it, if that is not the code, such as `cmn` for `zh`. The id is made of it, so that runs that
    were made before spellings became codes keep their takes."""

    @cached_property
    def id(self) -> str:
        """Hash of the text, the bytes of the reference, its words, the instruction and the language."""
        clip = "" if self.reference is None else file_sha256(self.reference)
        parts = [self.text, clip, self.reference_text, self.instruction, self.language_id or self.language]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:_ID_LENGTH]

    @property
    def speaker(self) -> str:
        """The voice that is asked for: the group `speaker`, otherwise the reference clip, otherwise the item itself."""
        return self.groups.get("speaker") or (str(self.reference) if self.reference else self.id)


_COLUMNS = {
    "id": "name",
    "text": "text",
    "language_id": "language",
    "ref_audio": "reference",
    "ref_text": "reference_text",
    "human_audio": "human",
    "instruction": "instruction",
    "list": "list_name",
}
"""Columns of a list, and the fields of `Item`."""
_PATHS = ("ref_audio", "human_audio")
_IGNORED = ("language_name",)


def to_row(item: Item) -> dict[str, Any]:
    """Return an item as one object of a JSONL list; paths are absolute and absent values are left out."""
    row: dict[str, Any] = {}
    for column, name in _COLUMNS.items():
        value = (item.language_id or item.language) if name == "language" else getattr(item, name)
        if value not in (None, ""):
            row[column] = str(Path(value).absolute()) if column in _PATHS else value
    return {**row, **item.groups}


def from_row(row: Mapping[str, Any], folder: Path, list_name: str = "") -> Item:
    """Return the item of one object. Relative paths start at `folder`. A language that is spelled in another way (`cmn`, `Chinese`,
    `zh-CN`) becomes its code; one that is not known stays as it is.

    Raises EvaluationError for a missing text or language, a value that is not text, or a clip that does not exist.
    """
    values: dict[str, Any] = {}
    groups: dict[str, str] = {}
    for column, value in row.items():
        if value is None or column in _IGNORED:
            continue
        if isinstance(value, dict | list):
            raise EvaluationError(f"{column} is {type(value).__name__}, not text")
        if column not in _COLUMNS:
            groups[column] = str(value)
        elif column in _PATHS:
            if str(value):
                path = folder / str(value)
                if not path.is_file():
                    raise EvaluationError(f"{column}: no audio file at {path}")
                values[_COLUMNS[column]] = path
        else:
            values[_COLUMNS[column]] = str(value)
    for needed in ("text", "language"):
        if not values.get(needed, "").strip():
            raise EvaluationError(f"{'language_id' if needed == 'language' else needed} is missing")
    values.setdefault("list_name", list_name)
    if (code := canonical_language(values["language"])) != values["language"]:
        values |= {"language": code, "language_id": values["language"]}
    return Item(**values, groups=groups)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text) of the lines that are not blank. Raises EvaluationError if the file cannot be read as UTF-8."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\n")
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{path} is not UTF-8 text ({one_line(error)})") from None
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read ({error.strerror or error})") from None


def read_items(path: Path) -> list[Item]:
    """Read a JSONL list. Raises EvaluationError with the line's number, or if the file cannot be read as UTF-8."""
    items = []
    for number, line in read_lines(path):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise EvaluationError("not an object")
            items.append(from_row(row, path.parent, path.stem))
        except (EvaluationError, json.JSONDecodeError) as error:
            raise EvaluationError(f"{path}, line {number}: {error}") from None
    if not items:
        raise EvaluationError(f"{path} has no items")
    return items


def write_items(path: Path, items: Iterable[Item]) -> None:
    """Write a JSONL list, whole or not at all."""
    lines = [json.dumps(to_row(item), ensure_ascii=False) + "\n" for item in items]
    write_atomically(path, "".join(lines).encode())


def distinct(items: Iterable[Item]) -> Iterator[Item]:
    """Yield each item once: of two with the same content, the first."""
    seen: set[str] = set()
    for item in items:
        if item.id not in seen:
            seen.add(item.id)
            yield item
