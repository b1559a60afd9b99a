"""What a test can play: the items that every system has spoken, and the clips of each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.errors import EvaluationError
from evaluation.items import Item
from evaluation.listen.settings import ListenSettings
from evaluation.runs.folder import Run
from evaluation.runs.score import all_takes

HUMAN = "human"


@dataclass(frozen=True)
class Clip:
    """A file to be played, and where it comes from."""

    path: Path
    item: Item
    system: str
    seed: int | None = None


@dataclass
class Material:
    """Systems, the items of the test and of its training, and a clip per system and item id."""

    systems: list[str]
    items: list[Item]
    training: list[Item]
    clips: dict[tuple[str, str], Clip]
    left_out: dict[str, int] = field(default_factory=dict)
    """Items that are not in the test, by reason. A take that failed is a reason, with the system's name."""
    common: int = 0
    """Items that could have been drawn."""


def collect(runs: Sequence[Run], settings: ListenSettings, rng: random.Random) -> Material:
    """Draw the items of a test from runs. Of a take with several seeds, the first seed is played; if it failed, the item is
    left out and counted.

    Raises EvaluationError for too few systems, unknown names of systems, or runs without an item in common.
    """
    clips: dict[tuple[str, str], Clip] = {}
    failed: dict[tuple[str, str], str] = {}
    items: dict[str, Item] = {}
    systems = _names(runs)
    for name, run in zip(systems, runs, strict=True):
        items |= run.by_id
        for take in all_takes(run):
            key = (name, take.item.id)
            if key in clips or key in failed:
                continue
            if take.path is None:
                failed[key] = take.status
            elif not take.path.is_file():
                raise EvaluationError(f"{take.path} is missing; generate the run {run.root} again")
            else:
                clips[key] = Clip(take.path, take.item, name, take.seed)
    if _adds_human(systems, settings):
        systems.append(HUMAN)
        clips |= {(HUMAN, i.id): Clip(i.human, i, HUMAN) for i in items.values() if i.human is not None}
    _check(systems, settings)
    left_out: dict[str, int] = {}
    usable = []
    for item in sorted(items.values(), key=lambda item: item.id):
        if reason := _reason(item, systems, clips, failed, settings):
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            usable.append(item)
    if not usable:
        found = "; ".join(f"{reason}: {count}" for reason, count in left_out.items())
        raise EvaluationError(f"the systems have no item in common that can be played ({found or 'no items'})")
    rng.shuffle(usable)
    spare = usable[settings.items :] or usable
    return Material(
        systems,
        usable[: settings.items],
        [spare[number % len(spare)] for number in range(settings.training)],
        clips,
        left_out,
        len(usable),
    )


def _names(runs: Sequence[Run]) -> list[str]:
    """Return the name of each run, with its folder's name where two have the same one."""
    names = [run.name for run in runs]
    names = [
        name if names.count(name) == 1 else f"{name} ({run.root.name})" for name, run in zip(names, runs, strict=True)
    ]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise EvaluationError(f"two runs are named {', '.join(twice)}; rename one of the folders")
    return names


def _adds_human(systems: Sequence[str], settings: ListenSettings) -> bool:
    wanted = settings.human or (settings.kind == "mushra" and settings.reference == HUMAN)
    return wanted and HUMAN not in systems


def _check(systems: Sequence[str], settings: ListenSettings) -> None:
    need = 1 if settings.kind == "acr" else 2
    if len(systems) < need:
        raise EvaluationError(f"a test of the kind {settings.kind} needs {need} systems; got {len(systems)}")
    pairs = settings.kind in ("cmos", "ab", "abx")
    wanted = settings.reference if settings.kind == "mushra" else settings.against if pairs else None
    if wanted is not None and wanted not in systems:
        raise EvaluationError(f"no system {wanted!r} in this test; there are: {', '.join(systems)}")


def _reason(
    item: Item,
    systems: Sequence[str],
    clips: dict[tuple[str, str], Clip],
    failed: dict[tuple[str, str], str],
    settings: ListenSettings,
) -> str | None:
    """Return why an item cannot be in the test."""
    for system in systems:
        if status := failed.get((system, item.id)):
            return f"{system}: {status}"
        if (system, item.id) not in clips:
            return f"{system}: not spoken" if system != HUMAN else "no recording of the text"
    wants_voice = settings.kind == "abx" or (settings.kind == "acr" and "similarity" in settings.scales)
    if wants_voice and item.reference is None:
        return "no reference clip"
    if settings.kind == "acr" and "instruction" in settings.scales and not item.instruction:
        return "no instruction"
    return None
