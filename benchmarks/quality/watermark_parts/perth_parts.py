"""Perth on one clip: its confidence after each attack, marked and unmarked, and what its mark costs."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from attacks import attacks
from clips import Clip
from measures import quality
from perth import Perth


@cache
def _perth(folder: Path) -> Perth:
    return Perth(folder)


def after_attacks(clip: Clip, corpora: Path, folder: Path) -> dict[str, Any]:
    """Return {"marked" and "plain": {attack: confidence}, "quality": its costs}."""
    perth = _perth(folder)
    marked = perth.mark(clip.samples, clip.rate)
    found: dict[str, Any] = {"marked": {}, "plain": {}, "quality": quality(clip.samples, marked, clip.rate)}
    for name, attack in attacks(corpora).items():
        found["marked"][name] = perth.confidence(attack(marked, clip.rate), clip.rate)
        found["plain"][name] = perth.confidence(attack(clip.samples, clip.rate), clip.rate)
    return found
