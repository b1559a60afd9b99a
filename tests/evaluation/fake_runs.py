"""Synthetic runs: a system whose takes carry planned figures in their notes, and metrics that read them back.

The way is the real one: create_run, generate, score. Only the figures are planned, so that tests know what must come out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from evaluation.errors import SpeakError
from evaluation.items import Item
from evaluation.metrics.base import Metric, Plain, Take, Value
from evaluation.runs.folder import Run, create_run
from evaluation.runs.generate import generate
from evaluation.runs.score import score
from evaluation.systems.base import Ask, Speech

Plan = Callable[[Item, int], Mapping[str, float] | str | None]
"""Figures of a take by column; a text: the take fails with it; None: it is spoken and has no figures."""


class Planned:
    """A system that follows a plan."""

    batch = 8
    seeded = True

    def __init__(self, name: str, plan: Plan) -> None:
        self.name = name
        self._plan = plan

    def describe(self) -> dict[str, Any]:
        return {"kind": "planned", "name": self.name}

    def speak(self, asks: Sequence[Ask]) -> list[Speech | Exception]:
        return [self._answer(ask) for ask in asks]

    def _answer(self, ask: Ask) -> Speech | Exception:
        planned = self._plan(ask.item, ask.seed)
        if isinstance(planned, str):
            return SpeakError(planned)
        return Speech(np.full(40, 0.1, np.float32), 8000, notes=dict(planned or {}))

    def close(self) -> None:
        pass


class Noted(Plain):
    """Gives back what a take's notes say."""

    schema: pa.Schema

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        found: list[dict[str, Any] | None] = []
        for take in takes:
            notes = json.loads(take.row["notes"] or "{}")
            row = {name: notes[name] for name in self.schema.names if name in notes}
            found.append(row or None)
        return found


class Rates(Noted):
    """Error rates of both kinds, and those of a recording."""

    name = "fake_words"
    version = 1
    values = (
        Value("wer", "WER, fake", "%", "lower", 1.0, ("word_errors", "words"), 100.0, smallest=0.5),
        Value("cer", "CER, fake", "%", "lower", 1.0, ("char_errors", "chars"), 100.0, smallest=0.5),
    )
    schema = pa.schema(
        [(name, pa.float64()) for name in ("wer", "cer", "word_errors", "words", "char_errors", "chars")]
    )


class Floor(Noted):
    """What a recognizer makes of a recording."""

    name = "fake_floor"
    version = 1
    values = (Value("floor_wer", "WER of recordings, fake", "%", "none", None, None, 100.0),)
    schema = pa.schema([("floor_wer", pa.float64())])


class Likeness(Noted):
    """A figure that failed takes do not have, of items with a reference."""

    name = "fake_voice"
    version = 1
    values = (Value("cosine", "likeness, fake", "cosine", "higher", digits=3, smallest=0.01),)
    schema = pa.schema([("cosine", pa.float64())])
    needs = frozenset({"audio", "reference"})


def fake_metrics() -> list[Metric]:
    return [Rates(), Floor(), Likeness()]


def items(
    count: int, language: str = "en", list_name: str = "fake", voices: int = 0, reference: Path | None = None
) -> list[Item]:
    """Return items; with `voices`, as many speakers take turns."""
    return [
        Item(
            f"{language} sentence number {number}",
            language,
            name=f"{list_name}-{language}-{number}",
            list_name=list_name,
            reference=reference,
            groups={"speaker": f"s{number % voices}"} if voices else {},
        )
        for number in range(count)
    ]


def planned_run(
    folder: Path, name: str, wanted: Sequence[Item], plan: Plan, seeds: Sequence[int] = (0,), scored: bool = True
) -> Run:
    """Return a run that was generated and scored."""
    system = Planned(name, plan)
    run = create_run(folder / name, {"name": name, "system": system.describe()}, wanted, seeds)
    generate(run, system)
    if scored:
        score(run, fake_metrics())
    return run


def rate_plan(rates: Mapping[str, float], words: float = 10, **more: float) -> Plan:
    """Return a plan by the names of items: their WER, and half of it as CER."""

    def plan(item: Item, seed: int) -> dict[str, float]:
        rate = rates[item.name]
        parts = {"word_errors": rate * words, "words": words, "char_errors": rate / 2 * 40, "chars": 40}
        return {"wer": rate, "cer": rate / 2, **parts, **more}

    return plan
