"""The worst takes of a run: the ones to listen to first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.results.figures import Figures, Series
from evaluation.runs.rows import Key


@dataclass(frozen=True)
class Worst:
    """One of the worst takes by a figure, in the unit of tables; None: the take failed."""

    key: Key
    figure: float | None


def worst(figures: Figures, series: Series, count: int) -> list[Worst]:
    """Return the takes with the worst figures of a value, one per item; failed takes come first."""
    failed = [Worst(key, None) for key, status in sorted(figures.statuses.items()) if status != "ok"]
    sign = -1 if series.value.better == "lower" else 1
    known = sorted((sign * figure, key) for key, figure in series.figures.items() if figures.statuses[key] == "ok")
    # A take without an error is never among the worst.
    found = [Worst(key, sign * figure * series.value.scale) for figure, key in known if sign > 0 or figure != 0]
    chosen: dict[str, Worst] = {}
    for one in [*failed[: max(count // 2, 1)], *found]:
        chosen.setdefault(one.key[0], one)
    return list(chosen.values())[:count]


def differences(wanted: Sequence[str], heard: Sequence[str]) -> list[tuple[str, str]]:
    """Return the words that were to be said and that were heard as (kind, words): `same`, `missing` or `added`."""
    from difflib import SequenceMatcher

    found: list[tuple[str, str]] = []
    for kind, a, b, c, d in SequenceMatcher(a=wanted, b=heard, autojunk=False).get_opcodes():
        if kind == "equal":
            found.append(("same", " ".join(wanted[a:b])))
            continue
        if b > a:
            found.append(("missing", " ".join(wanted[a:b])))
        if d > c:
            found.append(("added", " ".join(heard[c:d])))
    return found
