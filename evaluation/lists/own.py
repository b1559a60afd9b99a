"""Lists in our own format: JSONL files, and the panel that comes with the package."""

from __future__ import annotations

from pathlib import Path

from evaluation.errors import EvaluationError
from evaluation.items import Item, read_items

PANEL = Path(__file__).parent / "panel.jsonl"


def read_jsonl(argument: str) -> list[Item]:
    """Return the items of a JSONL file. Raises EvaluationError with the line of a fault."""
    path = Path(argument).expanduser()
    if not path.is_file():
        raise EvaluationError(f"no list at {path}")
    return read_items(path)


def read_panel(argument: str = "") -> list[Item]:
    """Return two sentences in each of VoxCPM2's 30 languages, of our own wording (CC0), without references."""
    if argument:
        raise EvaluationError(f"panel takes no path, but {argument!r} was given")
    return read_items(PANEL)
