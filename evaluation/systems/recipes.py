"""Recipes: what of an item a VoxCPM2 model is given. Figures of two recipes are not comparable, so a run names its recipe."""

from __future__ import annotations

from typing import Literal

from evaluation.items import Item
from evaluation.systems.options import Options

Recipe = Literal["plain", "reference", "continuation", "both", "design", "controllable"]

NEEDS: dict[Recipe, tuple[str, ...]] = {
    "plain": (),
    "reference": ("reference",),
    "continuation": ("reference", "reference_text"),
    "both": ("reference", "reference_text"),
    "design": ("instruction",),
    "controllable": ("instruction", "reference"),
}
"""Fields of an item that a recipe uses. `both`, the recipe of the VoxCPM2 paper, gives the clip as reference and as prompt."""
_WORDS = {
    "reference": "a reference clip (ref_audio)",
    "reference_text": "the words of the reference clip (ref_text)",
    "instruction": "an instruction",
}


class RecipeOptions(Options):
    """Options that decide what a VoxCPM2 model says."""

    recipe: Recipe = "both"
    """What of an item the model is given."""
    cfg: float = 2.0
    """Guidance."""
    steps: int = 10
    """Steps of the solver."""
    retry: bool = True
    """Whether an utterance that does not end is generated again, up to 3 attempts, as in the paper."""
    max_seconds: float | None = None
    """Longest audio. None: twice the usual speaking time of the text plus 2 s. 0: only the model's own limit."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 and so on."""


def lacking(recipe: Recipe, item: Item) -> str | None:
    """Return what an item lacks for a recipe, as a message; None if it lacks nothing."""
    missing = [_WORDS[name] for name in NEEDS[recipe] if not getattr(item, name)]
    if not missing:
        return None
    return f"the recipe {recipe} needs {' and '.join(missing)}, which the item lacks; choose another recipe"


def clean_instruction(instruction: str) -> str:
    """Return an instruction without parentheses and line breaks: it is put in parentheses before the text."""
    return " ".join(instruction.replace("(", "").replace(")", "").split())
