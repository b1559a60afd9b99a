"""A system that hums and a metric that counts its calls, for tests of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from evaluation.errors import SpeakError, TimedOutError
from evaluation.items import Item
from evaluation.metrics.base import Plain, Take, Value
from evaluation.systems.base import Ask, Speech

RATE = 16_000


def toy_items(count: int) -> list[Item]:
    """Return items whose texts tell the toy system what to do."""
    return [Item(f"sentence number {number}", "en", name=f"s{number}") for number in range(count)]


class Hum:
    """Answers with a tone whose pitch depends on item and seed; some words of a text make it fail."""

    name = "hum"
    seeded = True

    def __init__(self, batch: int = 1) -> None:
        self.batch = batch
        self.asked: list[tuple[str, int]] = []

    def describe(self) -> dict[str, Any]:
        return {"kind": "hum"}

    def speak(self, asks: Sequence[Ask]) -> list[Speech | Exception]:
        self.asked += [(ask.item.text, ask.seed) for ask in asks]
        return [self._answer(ask) for ask in asks]

    def _answer(self, ask: Ask) -> Speech | Exception:
        text = ask.item.text
        if "crash" in text:
            return SpeakError("the model crashed\non two lines")
        if "late" in text:
            return TimedOutError("no answer in 5 s")
        if "empty" in text:
            return Speech(np.zeros(0, np.float32), RATE)
        times = np.arange(RATE // 2) / RATE
        level = 0.0 if "mute" in text else 0.3
        tone = level * np.sin(2 * np.pi * (200 + ask.seed + len(text)) * times)
        return Speech(tone.astype(np.float32), RATE, wall_s=0.1, reached_limit="endless" in text)

    def close(self) -> None:
        pass


class Peak(Plain):
    """The peak of a take. `calls` counts takes over all instances."""

    name = "peak"
    version = 1
    values = (Value("peak", "Peak", "", "higher", failed=0.0),)
    schema = pa.schema([("peak", pa.float64())])
    calls: list[str] = []  # noqa: RUF012 - shared on purpose

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        Peak.calls += [take.item.text for take in takes]
        return [{"peak": float(np.abs(take.audio()).max())} for take in takes]


class DoublePeak(Plain):
    """Twice the peak, from the rows of `peak` alone."""

    name = "double"
    version = 1
    values = (Value("double", "Double", "", "higher"),)
    schema = pa.schema([("double", pa.float64())])
    uses = ("peak",)

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        return [{"double": 2 * take.given["peak"]["peak"]} for take in takes]


def toy_settings(system: Hum) -> dict[str, Any]:
    """Return the settings of a run of the toy system."""
    return {"name": "hum", "system": system.describe()}


def run_folder(tmp_path: Path) -> Path:
    """Return the folder of a run that does not exist yet."""
    return tmp_path / "run"
