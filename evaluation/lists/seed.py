"""Seed-TTS-Eval: `meta.lst` files with `utt|prompt_text|prompt_wav|infer_text|infer_wav`.

The official script also takes two fields (`utt|text`), three (`utt|text|prompt_wav`) and four (without infer_wav).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evaluation.errors import EvaluationError
from evaluation.items import Item, read_lines
from evaluation.languages import language_code
from evaluation.lists.base import is_audio, missing_files, without_missing_recordings

_NAMES = ("en/meta.lst", "zh/meta.lst", "zh/hardcase.lst", "meta.lst", "hardcase.lst")
_GET = "unpack the whole test set beside the list (see: voxmill evaluate lists)"


def read(argument: str, *, language: str = "") -> list[Item]:
    """Return the items of a `.lst` file, or of the official lists below a folder.

    language: default: the name of the list's folder. Raises EvaluationError with the line of a fault.
    """
    path = Path(argument).expanduser()
    if not path.is_dir():
        return _read_file(path, language)
    found = [path / name for name in _NAMES if (path / name).is_file()]
    if not found:
        raise EvaluationError(f"{path} has no {' or '.join(_NAMES[:3])}; give a .lst file")
    return [item for one in found for item in _read_file(one, language)]


def list_name(path: Path, language: str) -> str:
    """Return the name in tables: `seed-en`, `seed-zh`, `seed-hard`, and the file's name for other lists."""
    known = {"meta": f"seed-{language}", "hardcase": "seed-hard" if language == "zh" else f"seed-hard-{language}"}
    return known.get(path.stem, f"seed-{language}-{path.stem}")


def _read_file(path: Path, language: str) -> list[Item]:
    if not path.is_file():
        raise EvaluationError(f"no list at {path}")
    code = language_code(language) if language else _folder_language(path)
    items = []
    for number, line in read_lines(path):
        try:
            items.append(replace(_item(line, path.parent), language=code, list_name=list_name(path, code)))
        except EvaluationError as error:
            raise EvaluationError(f"{path}, line {number}: {error}") from None
    if not items:
        raise EvaluationError(f"{path} has no items")
    missing = [item.reference for item in items if item.reference and not item.reference.is_file()]
    if missing:
        raise missing_files(str(path), missing, len(items), _GET)
    return without_missing_recordings(items, path)


def _item(line: str, folder: Path) -> Item:
    """Return the item of a line, with paths that may not exist. Raises EvaluationError for a line of another form."""
    fields = [field.strip() for field in line.split("|")]
    if not 2 <= len(fields) <= 5:
        raise EvaluationError(f"{len(fields)} fields, not 2 to 5; a text must not contain |")
    at = {2: (1, None, None, None), 3: (1, 2, None, None), 4: (3, 2, 1, None), 5: (3, 2, 1, 4)}[len(fields)]
    text, clip, words, own = (fields[place] if place is not None else "" for place in at)
    for value in [value for value, place in ((clip, at[1]), (own, at[3])) if place is not None]:
        if not is_audio(value):
            raise EvaluationError(f"{value!r} is not an audio file; a text must not contain |")
    if not fields[0] or not text:
        raise EvaluationError("the id or the text is empty")
    # The official archive has the recordings of the texts in wavs/, and the lists of four fields do not name them.
    beside = folder / "wavs" / f"{Path(fields[0]).stem}.wav"
    human = folder / own if own else beside if beside.is_file() else None
    reference = folder / clip if clip else None
    return Item(text, "", Path(fields[0]).stem, "", reference, words, human)


def _folder_language(path: Path) -> str:
    name = path.absolute().parent.name
    if len(name) not in (2, 3):
        raise EvaluationError(f"{path}: the folder {name!r} does not name a language; add ,language=CODE")
    return language_code(name)
