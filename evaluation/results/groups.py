"""Groups of items: by list, language, speaker, length and any other text column of a list."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from evaluation.items import Item
from evaluation.results.units import paper_unit

MOST = 40
"""Groups with more levels than this get no rows, as with the speakers of Common Voice."""
LENGTHS = ((50, "short"), (150, "medium"))
"""Characters up to which a text is short or medium; a character of a language without spaces counts as three."""


def length_of(item: Item) -> str:
    """Return short, medium or long."""
    wide = paper_unit(item.language) == "CER" and " " not in item.text.strip()
    size = len(item.text) * (3 if wide else 1)
    return next((name for limit, name in LENGTHS if size <= limit), "long")


def family(list_name: str, language: str) -> str:
    """Return a list's name without the language at its end: `minimax` of `minimax-de`. Lists of a family share a table."""
    return re.sub(rf"-{re.escape(language)}$", "", list_name, flags=re.IGNORECASE) if language else list_name


def by_list(items: Iterable[Item]) -> dict[tuple[str, str], list[Item]]:
    """Return items by list and language, in the order of the lists."""
    found: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        found.setdefault((item.list_name, item.language), []).append(item)
    return found


def by_group(items: Sequence[Item], most: int = MOST) -> dict[str, dict[str, list[Item]]]:
    """Return items by the name and the level of each group that divides them: two levels or more, and not one item in each."""
    names = list(dict.fromkeys(name for item in items for name in item.groups))
    readers: dict[str, Callable[[Item], str | None]] = {"length": length_of}
    if "speaker" not in names and any(item.reference for item in items):
        readers["speaker"] = lambda item: (
            "/".join(item.reference.with_suffix("").parts[-2:]) if item.reference else None
        )
    readers |= {name: lambda item, name=name: item.groups.get(name) for name in names}  # type: ignore[misc]
    found: dict[str, dict[str, list[Item]]] = {}
    for name, read in readers.items():
        levels: dict[str, list[Item]] = {}
        for item in items:
            if level := read(item):
                levels.setdefault(level, []).append(item)
        if 2 <= len(levels) <= most and any(len(members) > 1 for members in levels.values()):
            found[name] = dict(sorted(levels.items()))
    return found


def ids(items: Iterable[Item]) -> list[str]:
    """Return the ids of items."""
    return [item.id for item in items]


def speakers(items: Iterable[Item]) -> list[str]:
    """Return the speaker of each item, by which intervals are clustered."""
    return [item.speaker for item in items]


def names_of(items: Iterable[Item], wanted: Iterable[str]) -> list[str]:
    """Return the names that items of these ids have in their lists, as `LIST NAME`."""
    by_id: Mapping[str, Item] = {item.id: item for item in items}
    return [f"{by_id[one].list_name} {by_id[one].name or one}".strip() for one in wanted]
