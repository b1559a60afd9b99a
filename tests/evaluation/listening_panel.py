"""Runs of made-up systems, a panel of made-up listeners, and a browser that answers a test."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from evaluation.items import Item
from evaluation.runs.folder import Run, create_run
from evaluation.runs.generate import generate
from evaluation.systems.base import Ask, Speech

RATE = 16000


def sound(number: int, seconds: float = 0.3, rate: int = RATE) -> np.ndarray:
    """A buzz with a slow envelope, other for each number."""
    time = np.arange(int(seconds * rate)) / rate
    pitch = 110 + 7 * number
    wave = sum(np.sin(2 * np.pi * pitch * k * time + k * number) / k for k in range(1, 12))
    return (0.1 * wave * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time + number))).astype(np.float32)


def make_items(folder: Path, count: int, *, human: bool = False, reference: bool = False) -> list[Item]:
    """Items with texts, and with clips if asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for number in range(count):
        clips: dict[str, Path] = {}
        for wanted, name in ((human, "human"), (reference, "reference")):
            if wanted:
                clips[name] = folder / f"sentence-{number}-{name}.wav"
                soundfile.write(clips[name], sound(1000 * (name == "human") + number), RATE)
        items.append(
            Item(
                f"This is sentence number {number}.",
                "en",
                f"sentence-{number}",
                "toy",
                instruction="A low voice.",
                human=clips.get("human"),
                reference=clips.get("reference"),
            )
        )
    return items


class Buzzer:
    """A system that buzzes. `broken`: names of items that fail."""

    batch = 4
    seeded = True

    def __init__(self, name: str, shift: int, broken: Sequence[str] = (), rate: int = RATE) -> None:
        self.name, self._shift, self._broken, self._rate = name, shift, broken, rate

    def describe(self) -> dict[str, Any]:
        return {"kind": "buzzer", "name": self.name}

    def speak(self, asks: Sequence[Ask]) -> list[Speech | Exception]:
        return [
            RuntimeError("no voice")
            if ask.item.name in self._broken
            else Speech(sound(self._shift + int(ask.item.name.split("-")[1]), rate=self._rate), self._rate)
            for ask in asks
        ]

    def close(self) -> None:
        pass


def make_run(root: Path, items: Sequence[Item], name: str, shift: int, broken: Sequence[str] = ()) -> Run:
    """A run whose audio is made."""
    system = Buzzer(name, shift, broken)
    run = create_run(root, {"name": name, "system": system.describe()}, items, [0])
    generate(run, system)
    return run


def read_key(test: Path) -> dict[str, Any]:
    """The key of a test."""
    found: dict[str, Any] = json.loads(next((test / "key").glob("*.json")).read_text())
    return found


Rate = Callable[[dict[str, Any], str, random.Random], Any]
"""Trial of the key, name of the score -> score, by a listener with this RNG."""

NAMES = {
    "cmos": ["comparison"],
    "ab": ["preference"],
    "abx": ["preference"],
}


def answer_sheet(key: Mapping[str, Any], listener: int, rate: Rate, *, right: bool = True) -> dict[str, Any]:
    """The answers that the page would export for a listener. right: whether the checks are answered rightly."""
    rng = random.Random(listener)
    session = (listener - 1) % key["sessions"] + 1
    answers: list[dict[str, Any]] = []
    for name, trial in key["trials"].items():
        if trial["session"] != session:
            continue
        if "right" in trial:
            score = {"beeps": "beeps", "prefer": "preference", "tones": "quietest"}[trial["layout"]]
            wrong = next(value for value in ((1, 2) if score != "preference" else (-1, 1)) if value != trial["right"])
            scores = {score: trial["right"] if right else wrong}
        else:
            names = key["scales"] or NAMES.get(key["kind"]) or trial["clips"]
            scores = {scale: rate(trial, scale, rng) for scale in names}
        answers.append(
            {
                "trial": name,
                "position": len(answers) + 1,
                "clips": trial["clips"],
                "scores": scores,
                "plays": dict.fromkeys(trial["clips"], 1),
                "seconds": round(rng.uniform(3, 20), 2),
            }
        )
    return {
        "format": 1,
        "test": key["test"],
        "kind": key["kind"],
        "listener": listener,
        "who": f"{rng.getrandbits(64):016x}",
        "language": "en",
        "started": "2026-01-01T00:00:00.000Z",
        "finished": "2026-01-01T00:20:00.000Z",
        "order": [answer["trial"] for answer in answers],
        "answers": answers,
    }


def write_sheets(folder: Path, sheets: Sequence[Mapping[str, Any]]) -> list[Path]:
    """One file per listener."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, sheet in enumerate(sheets):
        path = folder / f"answers-{number:03}.json"
        path.write_text(json.dumps(sheet))
        paths.append(path)
    return paths
