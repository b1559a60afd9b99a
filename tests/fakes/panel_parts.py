"""A system and metrics whose figures are written into the sound: the panel's arithmetic without models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from evaluation.errors import SpeakError
from evaluation.items import Item
from evaluation.metrics.base import Plain, Take
from evaluation.systems.base import Ask, Speech

RATE = 16_000
Answer = tuple[float, float] | str
"""(character error rate, cosine), or `limit` or `error`."""


class Voice:
    """Answers with a constant whose two halves encode the figures of an item."""

    name, batch, seeded = "fake", 1, True

    def __init__(self, answer: Callable[[Item], Answer], digest: str) -> None:
        self.answer, self.digest = answer, digest
        self.spoken: list[str] = []

    def describe(self) -> dict[str, Any]:
        return {"kind": "fake", "folder": "/anywhere", "digest": self.digest}

    def speak(self, asks: Sequence[Ask]) -> list[Speech | Exception]:
        self.spoken += [ask.item.name for ask in asks]
        return [self._one(ask) for ask in asks]

    def _one(self, ask: Ask) -> Speech | Exception:
        found = self.answer(ask.item)
        if found == "error":
            return SpeakError("no voice today")
        rate, cosine = (0.5, 0.5) if isinstance(found, str) else found
        samples = np.concatenate([np.full(800, rate / 2 + 0.1), np.full(800, cosine / 2 + 0.1)]).astype(np.float32)
        return Speech(samples, RATE, reached_limit=found == "limit")

    def close(self) -> None:
        self.digest += ""


class Transcript(Plain):
    name, version, values = "transcript", 1, ()
    schema = pa.schema([pa.field("hypothesis", pa.string())])

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        return [{"hypothesis": take.item.text} for take in takes]


class Words(Plain):
    name, version, values, uses = "words_clean", 1, (), ("transcript",)
    schema = pa.schema([pa.field("wer", pa.float64()), pa.field("cer", pa.float64())])

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        rates = [2 * (float(take.audio()[:800].mean()) - 0.1) for take in takes]
        return [{"wer": rate, "cer": rate} for rate in rates]


class Likeness(Plain):
    name, version, values = "voice_ge2e", 1, ()
    needs = frozenset({"audio", "reference"})
    schema = pa.schema([pa.field("cosine", pa.float64())])

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        return [{"cosine": 2 * (float(take.audio()[800:].mean()) - 0.1)} for take in takes]


class Faults(Plain):
    name, version, values, uses = "tempo", 1, (), ("transcript",)
    schema = pa.schema([pa.field(name, pa.int8()) for name in ("early_stop", "tail", "loop", "start_artifact")])

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        kinds = [take.item.groups.get("fault", "") for take in takes]
        return [{name: int(name == kind) for name in self.schema.names} for kind in kinds]


METRICS = {
    "transcript": "fakes.panel_parts:Transcript",
    "words_clean": "fakes.panel_parts:Words",
    "voice_ge2e": "fakes.panel_parts:Likeness",
    "tempo": "fakes.panel_parts:Faults",
}
