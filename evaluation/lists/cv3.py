"""CV3-Eval: Kaldi style folders with `text`, `prompt_text`, `prompt_wav.scp` and sometimes `gt_wav.scp`, one `id value` a line."""

from __future__ import annotations

import csv
import re
from pathlib import Path, PurePosixPath

from catalogs.vocabulary.languages import language as one_of
from evaluation.errors import EvaluationError
from evaluation.items import Item, read_lines
from evaluation.languages import language_code
from evaluation.lists.base import (
    by_name,
    choice,
    find_file,
    missing_files,
    without_missing_recordings,
)

_SETS = {
    "zero_shot": "",
    "cross_lingual_zeroshot": "",
    "emotion_zeroshot": "emotion",
    "subjective_continue": "continue",
    "subjective_zeroshot": "subjective",
    "zero_shot_clone_10speak": "clone",
}
"""Folders of the sets, and their part of a list's name."""
_LANGUAGE = re.compile(r"(?:to_)?(?:hard_)?([a-z]{2,3})")
_LEVELS = ("high", "low")
_GET = "fetch the waveform/ folder of the subset beside its text file"


def read(argument: str, *, quotes: str = "undo", language: str = "") -> list[Item]:
    """Return the items of one subset, or of every subset below a folder, by name.

    quotes: `undo` removes the CSV quoting that the files were published with; `keep` leaves it, as some other toolkits do.
    language: default: the name of the subset's folder.
    """
    choice("quotes", quotes, ("undo", "keep"))
    root = Path(argument).expanduser()
    folders = (
        [root] if (root / "text").is_file() else sorted(path.parent for path in root.rglob("text") if path.is_file())
    )
    if not folders:
        raise EvaluationError(f"{root} has no subset of CV3-Eval (a folder with the files text and prompt_wav.scp)")
    return [item for folder in folders for item in _read_subset(folder, quotes == "undo", language)]


def without_quotes(text: str) -> str:
    """Undo CSV quoting: a text in quotes in which every quote is doubled. Other text is unchanged."""
    inner = text[1:-1]
    if len(text) < 2 or text[0] != '"' or text[-1] != '"' or '"' in inner.replace('""', ""):
        return text
    return next(csv.reader([text]))[0]


def _read_subset(folder: Path, unquote: bool, language: str) -> list[Item]:
    parts = folder.absolute().parts
    code = language_code(language) if language else _language_of(folder)
    texts = _values(folder / "text")
    words, clips, recordings = (_values(folder / name) for name in ("prompt_text", "prompt_wav.scp", "gt_wav.scp"))
    for name, values in (("prompt_text", words), ("prompt_wav.scp", clips)):
        lacking = [key for key in texts if key not in values]
        if values and lacking:
            raise EvaluationError(
                f"{folder / name}: {len(lacking)} of {len(texts)} ids of text are missing, first {lacking[0]}"
            )
    items = []
    for key, text in texts.items():
        said = words.get(key, "")
        items.append(
            Item(
                text=without_quotes(text) if unquote else text,
                language=code,
                name=key,
                list_name=_list_name(parts),
                reference=_place(folder, clips[key]) if key in clips else None,
                reference_text=without_quotes(said) if unquote else said,
                human=_place(folder, recordings[key]) if key in recordings else None,
                groups=_groups(key, parts),
            )
        )
    missing = [item.reference for item in items if item.reference and not item.reference.is_file()]
    if missing:
        raise missing_files(str(folder), missing, len(items), _GET)
    return without_missing_recordings(items, folder)


def _values(path: Path) -> dict[str, str]:
    """Return the values of a Kaldi file by id; empty if the file does not exist."""
    if not path.is_file() and path.name != "text":
        return {}
    rows = []
    for number, line in read_lines(path):
        key, _, value = line.strip().partition(" ") if " " in line.strip() else line.strip().partition("\t")
        if not value.strip():
            raise EvaluationError(f"{path}, line {number}: no value after the id {key!r}")
        rows.append((number, key, value.strip()))
    if not rows:
        raise EvaluationError(f"{path} has no items")
    return by_name(rows, path)


def _place(folder: Path, name: str) -> Path:
    """Return the file of an scp path such as `data/zero_shot//ja/waveform/1.wav`: the paths start at the root of the repository.
    If it is not found, the path beside the list, for the message."""
    return find_file(folder, name) or folder.joinpath(*PurePosixPath(name).parts[-2:])


def _language_of(folder: Path) -> str:
    for name in reversed(folder.absolute().parts[-3:]):
        if (found := _LANGUAGE.fullmatch(name)) and (known := one_of(found[1])):
            return known.code
    raise EvaluationError(f"{folder}: no folder of the path names a language; add ,language=CODE")


def _list_name(parts: tuple[str, ...]) -> str:
    """Return `cv3-ja`, `cv3-hard-en`, `cv3-to-ko`, `cv3-emotion-en-angry` and so on."""
    start = next((at for at in range(len(parts) - 1, -1, -1) if parts[at] in _SETS), None)
    inner = parts[-1:] if start is None else parts[start + 1 :]
    kind = "" if start is None else _SETS[parts[start]]
    if kind == "clone":  # The voice is a group.
        inner = inner[-1:]
    return "-".join(["cv3", *filter(None, [kind]), *(name.replace("_", "-") for name in inner)])


def _groups(key: str, parts: tuple[str, ...]) -> dict[str, str]:
    """Return emotion and level of an id such as `angry_high_12`, the direction of a cross-lingual set, the voice of a clone set."""
    groups: dict[str, str] = {}
    pieces = key.split("_")
    if len(pieces) > 2 and pieces[1] in _LEVELS:
        groups |= {"emotion": pieces[0], "level": pieces[1]}
    if "cross_lingual_zeroshot" in parts:
        groups["direction"] = parts[-1]
    if "zero_shot_clone_10speak" in parts[:-2]:
        groups["speaker"] = parts[parts.index("zero_shot_clone_10speak") + 1]
    return groups
