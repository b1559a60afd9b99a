"""MiniMax' multilingual test set: `text/<language>.txt` with `<language>_<gender>|text`, and `speaker/` with one clip a voice.

Copies with the texts only (`<language>.txt`, no label, header lines with #) have no reference.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from catalogs.nearest import nearest
from evaluation.errors import EvaluationError
from evaluation.items import Item, read_lines
from evaluation.languages import language_code
from evaluation.lists.base import AUDIO_ENDINGS


def read(argument: str) -> list[Item]:
    """Return the items of all languages of a folder, or of `FOLDER:german` or `FOLDER:de`. Each language is a list of its name."""
    root, wanted = _split(argument)
    texts = root / "text" if (root / "text").is_dir() else root
    files = {path.stem: path for path in sorted(texts.glob("*.txt")) if path.name != "prompt_text.txt"}
    if not files:
        raise EvaluationError(f"{root} has no text/<language>.txt; give the folder of MiniMax' test set")
    if wanted:
        code = language_code(wanted)
        files = {name: path for name, path in files.items() if language_code(name) == code}
        if not files:
            raise EvaluationError(f"{root} has no language {wanted!r}; it has {', '.join(_codes(texts))}")
    words = _prompt_texts(root / "speaker" / "prompt_text.txt")
    return [item for name, path in files.items() for item in _read_file(root, name, path, words)]


def _split(argument: str) -> tuple[Path, str]:
    if Path(argument).expanduser().is_dir():
        return Path(argument).expanduser(), ""
    path, colon, wanted = argument.rpartition(":")
    if not colon or not Path(path).expanduser().is_dir():
        raise EvaluationError(f"no folder at {path if colon else argument}")
    return Path(path).expanduser(), wanted


def _codes(texts: Path) -> list[str]:
    return sorted(language_code(path.stem) for path in texts.glob("*.txt"))


def _read_file(root: Path, name: str, path: Path, words: dict[str, str]) -> list[Item]:
    code = language_code(name)
    clips: dict[str, tuple[Path, str] | None] = {}
    items = []
    for number, line in read_lines(path):
        if line.startswith("#"):
            continue
        try:
            label, text = _label_and_text(line, name)
            if label and label not in clips:
                clips[label] = _clip(root, name, label, words)
        except EvaluationError as error:
            raise EvaluationError(f"{path}, line {number}: {error}") from None
        clip = clips.get(label)
        items.append(
            Item(
                text=text,
                language=code,
                name=f"{label or name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}",
                list_name=f"minimax-{code}",
                reference=clip[0] if clip else None,
                reference_text=clip[1] if clip else "",
                groups={"speaker": label, "gender": label.rpartition("_")[2]} if label else {},
            )
        )
    if not items:
        raise EvaluationError(f"{path} has no items")
    return items


def _label_and_text(line: str, name: str) -> tuple[str, str]:
    """Return (label of the voice, text); the label is empty in a line without one."""
    label, bar, text = (part.strip() for part in line.partition("|"))
    if not bar:
        return "", label
    if not label.startswith(f"{name}_") or "|" in text:
        raise EvaluationError(f"not `{name}_<gender>|text`; a text must not contain |")
    if not text:
        raise EvaluationError("the text is empty")
    return label, text


def _clip(root: Path, name: str, label: str, words: dict[str, str]) -> tuple[Path, str] | None:
    """Return the clip of a voice and its words; None if the copy has no clips at all."""
    if not (root / "speaker").is_dir():
        return None
    folder = root / "speaker" / name / label
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in AUDIO_ENDINGS)
    if not found:
        near = nearest(label, [path.name for path in (root / "speaker" / name).glob("*")])
        raise EvaluationError(
            f"the voice {label} has no clip in {folder}"
            + (f"; there is {near}" if near else "; fetch the folder speaker/ again")
        )
    clip = next((path for path in found if path.name in words), found[0])
    if words and clip.name not in words:
        raise EvaluationError(f"speaker/prompt_text.txt has no line for {clip.name}")
    return clip, words.get(clip.name, "")


def _prompt_texts(path: Path) -> dict[str, str]:
    """Return the words of the clips by file name."""
    if not path.is_file():
        return {}
    found = {}
    for number, line in read_lines(path):
        name, bar, text = line.partition("|")
        if not bar or not text.strip():
            raise EvaluationError(f"{path}, line {number}: not `<clip>|transcript`")
        found[Path(name.strip()).name] = text.strip()
    return found
