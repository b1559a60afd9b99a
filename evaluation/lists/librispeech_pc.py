"""F5-TTS's cross-sentence list over LibriSpeech-PC test-clean: prompt id, seconds, prompt text, id, seconds, text (tabs)."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

from evaluation.errors import EvaluationError
from evaluation.items import Item, read_lines
from evaluation.lists.base import choice

_LOG = logging.getLogger(__name__)
_ID = re.compile(r"(\d+)-(\d+)-\d+")
_FOLDERS = ("", "test-clean", "LibriSpeech/test-clean")


def read(argument: str, *, root: str = "", missing: str = "error") -> list[Item]:
    """Return the items of a list. root: the folder LibriSpeech, its test-clean, or any folder with files named by id.

    missing: what happens to items whose prompt is not below `root`: `error`; `text`: they have no reference; `skip`: they are left
    out. In the last two cases their number is logged. Raises EvaluationError with the line of a fault.
    """
    choice("missing", missing, ("error", "text", "skip"))
    path = Path(argument).expanduser()
    if root and not Path(root).expanduser().is_dir():
        raise EvaluationError(f"root={root} is not a folder; give the folder LibriSpeech with test-clean in it")
    clips = _Clips(Path(root).expanduser() if root else None)
    items, without = [], 0
    for number, line in read_lines(path):
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != 6 or not _ID.fullmatch(fields[0]) or not _ID.fullmatch(fields[3]):
            raise EvaluationError(
                f"{path}, line {number}: not `id, seconds, text, id, seconds, text` with tabs between them"
            )
        prompt, _, words, name, _, text = fields
        if not text or not words:
            raise EvaluationError(f"{path}, line {number}: a text is empty")
        reference = clips.find(prompt)
        item = Item(text, "en", name, "librispeech-pc", reference, words, clips.find(name), groups=_groups(prompt))
        without += reference is None
        if reference is None:
            item = replace(item, reference_text="")
        if reference or missing != "skip":
            items.append(item)
    if not items and not without:
        raise EvaluationError(f"{path} has no items")
    if without and missing == "error":
        raise EvaluationError(
            f"{path}: the audio of {without} of {len(items)} prompts is missing{f' below {root}' if root else ''}; add"
            " ,root=FOLDER of LibriSpeech with test-clean, or ,missing=text for texts without a voice, or ,missing=skip"
        )
    if without:
        done = "have no reference" if missing == "text" else "are left out"
        _LOG.warning("%s: %d items %s, as their audio is missing", path, without, done)
    if not items:
        raise EvaluationError(
            f"{path}: no prompt has audio below {root or 'root= (not given)'}; nothing is left to speak"
        )
    return items


def _groups(prompt: str) -> dict[str, str]:
    return {"speaker": prompt.partition("-")[0]}


class _Clips:
    """Finds clips by id: first at their place in LibriSpeech, then by name anywhere below the folder."""

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._names: dict[str, Path] | None = None

    def find(self, name: str) -> Path | None:
        if self._root is None:
            return None
        reader, chapter = _ID.fullmatch(name).groups()  # type: ignore[union-attr]
        for folder in _FOLDERS:
            path = self._root / folder / reader / chapter / f"{name}.flac"
            if path.is_file():
                return path
        if self._names is None:
            files = sorted(path for path in self._root.rglob("*") if path.suffix.lower() in (".flac", ".wav"))
            self._names = {path.stem: path for path in files}
        return self._names.get(name)
