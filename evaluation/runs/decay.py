"""Clone of a clone: each round's reference is a take of the round before. Systems that look alike in round 1 differ in round 4.

OUT/round-1 ... OUT/round-N are ordinary runs with the same items, whose references are the original clips. So every metric of
voices compares with the original, and rounds are compared as systems are. OUT/decay.json has the figures by round.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from catalogs.files import write_atomically
from evaluation.errors import EvaluationError, SpeakError
from evaluation.items import Item
from evaluation.metrics.base import Metric
from evaluation.runs.folder import Run, create_run, host
from evaluation.runs.generate import Count, generate
from evaluation.runs.score import rows_of, score
from evaluation.systems.base import Ask, Speech, System

FIGURES = "decay.json"
_COUNTS = ("round", "takes", "failed")


class _NextRound:
    """A system whose references are takes of the round before."""

    def __init__(self, system: System, before: Run, number: int) -> None:
        self._system, self._before, self._number = system, before, number
        self._rows = before.generated.by_key()
        self._partner = _partners(before.items)
        self.name, self.batch, self.seeded = f"{system.name}, round {number}", system.batch, system.seeded

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        return {**self._system.describe(), "round": self._number}

    def speak(self, asks: Sequence[Ask]) -> list[Speech | Exception]:
        """See `System`. An item whose reference failed in the round before fails, too."""
        answers: list[Speech | Exception] = [
            SpeakError("the take of the round before, which would be the reference, failed")
        ] * len(asks)
        ready = {number: one for number, ask in enumerate(asks) if (one := self._rewritten(ask)) is not None}
        if ready:
            for number, answer in zip(ready, self._system.speak(list(ready.values())), strict=True):
                answers[number] = answer
        return answers

    def _rewritten(self, ask: Ask) -> Ask | None:
        partner = self._partner[ask.item.id]
        row = self._rows.get((partner.id, ask.seed))
        if row is None or row["status"] != "ok":
            return None
        clip = self._before.root / row["audio"]
        return Ask(replace(ask.item, reference=clip, reference_text=partner.text), ask.seed)

    def close(self) -> None:
        """See `System`."""


def decay(
    system: System,
    items: Sequence[Item],
    rounds: int = 4,
    out: Path = Path("decay"),
    seed: int = 1,
    count: Count | None = None,
) -> list[Run]:
    """Speak items in rounds; return the runs. Running again continues where it was.

    From round 2 on, the reference of an item is the take of another item with the same original reference, so that the words are
    not in the reference. Without another, it is the take of the item itself. Raises EvaluationError for items without a
    reference, or a folder that cannot be used.
    """
    if rounds < 2:
        raise EvaluationError(f"decay needs at least 2 rounds, not {rounds}")
    lacking = [item.name or item.id for item in items if item.reference is None]
    if lacking:
        raise EvaluationError(
            f"decay: {len(lacking)} items have no reference (such as {lacking[0]}); give a list with ref_audio"
        )
    runs: list[Run] = []
    for number in range(1, rounds + 1):
        speaker: System = system if number == 1 else _NextRound(system, runs[-1], number)
        settings = {"system": speaker.describe(), "name": f"round {number}", "host": host()}
        run = create_run(out / f"round-{number}", settings, items, (seed,))
        generate(run, speaker, count)
        runs.append(run)
    return runs


def decay_figures(runs: Sequence[Run], metrics: Sequence[Metric]) -> list[dict[str, Any]]:
    """Score the rounds; return a row per round and write them beside the runs: `round`, `takes`, `failed`, and means by
    `metric.column`.

    A figure is the mean over the takes that have it; failed takes count as `Value.failed` says. Metrics that could not be loaded
    are in `not_measured`.
    """
    by_name = {metric.name: metric for metric in metrics}
    found = []
    for number, run in enumerate(runs, 1):
        scored = score(run, metrics)
        generated = run.generated.by_key()
        failed = [key for key, row in generated.items() if row["status"] != "ok"]
        row: dict[str, Any] = {"round": number, "takes": len(generated), "failed": len(failed)}
        for metric in metrics:
            if metric.name not in scored.not_measured:
                row |= _means(metric, rows_of(run, metric, by_name), len(failed))
        found.append(row | ({"not_measured": scored.not_measured} if scored.not_measured else {}))
    path = runs[0].root.parent / FIGURES
    write_atomically(path, json.dumps(found, indent=1, ensure_ascii=False).encode())
    return found


def decay_table(rows: Sequence[Mapping[str, Any]], metrics: Sequence[Metric]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the cells of a table of `decay_figures`, in the units and with the digits of the metrics."""
    values = {f"{metric.name}.{value.column}": value for metric in metrics for value in metric.values}
    names = [name for name in values if any(name in row for row in rows)]
    heads = [f"{values[name].title} ({values[name].unit})".replace(" ()", "") for name in names]
    cells = [
        [str(row[name]) for name in _COUNTS]
        + [f"{row[name] * values[name].scale:.{values[name].digits}f}" if name in row else "" for name in names]
        for row in rows
    ]
    return [*_COUNTS, *heads], cells


def _means(metric: Metric, rows: Mapping[tuple[str, int], Mapping[str, Any]], failed: int) -> dict[str, float]:
    found = {}
    for value in metric.values:
        figures = [float(row[value.column]) for row in rows.values() if row.get(value.column) is not None]
        if value.failed is not None:
            figures += [value.failed] * failed
        if figures:
            found[f"{metric.name}.{value.column}"] = sum(figures) / len(figures)
    return found


def _partners(items: Sequence[Item]) -> dict[str, Item]:
    """Return by item id the next item with the same reference, in a circle."""
    by_clip: dict[Path | None, list[Item]] = {}
    for item in items:
        by_clip.setdefault(item.reference, []).append(item)
    return {
        item.id: group[(number + 1) % len(group)] for group in by_clip.values() for number, item in enumerate(group)
    }
