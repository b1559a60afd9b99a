"""Published figures by list, from anchors.toml."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Anchor:
    """One published figure. `measure`: WER, CER or SIM. `source` and `judges`: where it comes from and how it was measured.

    `spread`: standard deviation over repeated runs, if it is known.
    """

    list: str
    system: str
    measure: str
    figure: float
    unit: str
    source: str
    judges: str
    spread: float | None = None


@functools.cache
def anchors() -> tuple[Anchor, ...]:
    """Return all published figures."""
    table: dict[str, Any] = tomllib.loads((Path(__file__).parent / "anchors.toml").read_text(encoding="utf-8"))
    sources, units = table["sources"], table["units"]
    return tuple(
        Anchor(
            name,
            entry["system"],
            measure,
            float(figure),
            units[measure],
            *_source(sources[entry["source"]]),
            spread=figures.get("spread"),
        )
        for entry in table["figures"]
        for name, figures in entry["lists"].items()
        for measure, figure in figures.items()
        if measure != "spread"
    )


def _source(entry: dict[str, str]) -> tuple[str, str]:
    return entry["title"], entry["judges"]


def anchors_of(lists: Iterable[str]) -> list[Anchor]:
    """Return the published figures of lists, in the lists' order."""
    return [anchor for name in lists for anchor in anchors() if anchor.list == name]
