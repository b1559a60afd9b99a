"""Lists in our own format: JSONL files, and the panel that comes with the package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evaluation.errors import EvaluationError
from evaluation.items import Item, read_items, read_lines

ENDINGS = (".wav", ".flac", ".ogg", ".mp3", ".opus")
PANEL = Path(__file__).parent / "panel.jsonl"


def read_jsonl(argument: str) -> list[Item]:
    """Return the items of a JSONL file. Raises EvaluationError with the line of a fault."""
    path = Path(argument).expanduser()
    if not path.is_file():
        raise EvaluationError(f"no list at {path}")
    return read_items(path)


def read_panel(argument: str = "") -> list[Item]:
    """Return two sentences in each of VoxCPM2's 30 languages, of our own wording (CC0).

    argument: a folder of clips, of which the items take turns as references. A clip's words are in a file beside it that ends
    with .txt. Without a folder the items have no references. Raises EvaluationError for a folder without clips.
    """
    items = read_items(PANEL)
    if not argument:
        return items
    folder = Path(argument).expanduser()
    clips = sorted(path for path in folder.glob("*") if path.suffix.lower() in ENDINGS)
    if not clips:
        raise EvaluationError(f"panel: {folder} has no audio file ({', '.join(ENDINGS)}); give a folder of clips")
    return [_with_voice(item, clips[number % len(clips)]) for number, item in enumerate(items)]


def _with_voice(item: Item, clip: Path) -> Item:
    words = clip.with_suffix(".txt")
    text = "\n".join(line for _, line in read_lines(words)).strip() if words.is_file() else ""
    return replace(item, reference=clip, reference_text=text, groups={**item.groups, "speaker": clip.stem})
