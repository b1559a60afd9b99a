"""The gate on the golden checkpoint: planted faults fail it, and a repeated run with other rounding does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from spoken_items import golden_items

from evaluation.gate import gate
from evaluation.items import Item
from evaluation.repeat import repeat
from evaluation.results.rules import Rule
from evaluation.runs.folder import Run, create_run
from evaluation.runs.generate import generate
from evaluation.systems import open_system
from evaluation.systems.base import Ask, Speech
from evaluation.systems.checkpoint import Checkpoint
from voxcpm import VoxCPM

TEXTS = tuple(
    f"{word} {number}" for word in ("Good morning", "Two trains", "Cold rain", "My hat") for number in range(5)
)
STEPS = 4
RULES = [Rule("takes.failed")]
"""Words and voices of random weights mean nothing; only takes are compared."""


@pytest.fixture(scope="module")
def model(golden: Path) -> VoxCPM:
    torch.set_num_threads(1)
    return VoxCPM.from_pretrained(golden / "checkpoint", load_denoiser=False, device="cpu")


class Changed:
    """The checkpoint with a planted fault. It describes itself as if it had none, as a build with a bug does."""

    def __init__(self, honest: Checkpoint, fault: str, other: Path) -> None:
        self._honest, self._fault, self._other = honest, fault, other
        self.name, self.batch, self.seeded = honest.name, 4, True

    def describe(self) -> dict[str, Any]:
        return {**self._honest.describe(), "steps": STEPS}

    def speak(self, asks: Sequence[Ask]) -> list[Speech | Exception]:
        if self._fault == "wrong seed":
            asks = [Ask(ask.item, ask.seed + 1) for ask in asks]
        if self._fault == "ignored seed":
            asks = [Ask(ask.item, 0) for ask in asks]
        if self._fault == "swapped reference":
            asks = [Ask(replace(ask.item, reference=self._other), ask.seed) for ask in asks]
        answers = self._honest.speak(asks)
        if self._fault != "rounding":
            return answers
        noise = np.random.default_rng()
        return [
            replace(one, samples=one.samples + noise.normal(size=len(one.samples)).astype(np.float32) * 1e-6)
            if isinstance(one, Speech)
            else one
            for one in answers
        ]

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def spoken(golden: Path, model: VoxCPM, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that speaks 20 texts with a fault."""
    folder = tmp_path_factory.mktemp("planted")
    whole = golden_items(golden, folder)[0]
    other = folder / "other.wav"
    samples, rate = soundfile.read(whole.reference)
    soundfile.write(other, samples[::-1], rate)
    items = [Item(text, "en", reference=whole.reference) for text in TEXTS]

    def speak(name: str, fault: str = "", seeds: tuple[int, ...] = (0,), steps: int = STEPS) -> Run:
        options = {"recipe": "reference", "steps": steps, "max_seconds": 0.5, "retry": False, "device": "cpu"}
        system = open_system(f"checkpoint:{golden / 'checkpoint'}", options)
        assert isinstance(system, Checkpoint)
        system.__dict__["model"] = model
        system._warm = True
        changed = Changed(system, fault, other)
        run = create_run(folder / name, {"name": name, "system": changed.describe()}, items, seeds)
        generate(run, changed)
        return run

    return speak


@pytest.fixture(scope="module")
def baseline(spoken: Any) -> Run:
    run: Run = spoken("baseline")
    return run


def outcome(run: Run, baseline: Run) -> tuple[str, float]:
    found = gate(run, baseline, RULES, [])
    (same,) = [one for one in found.outcomes if one.value == "takes.same"]
    assert same.estimate is not None
    return same.kind, same.estimate


@pytest.mark.parametrize("fault", ["wrong seed", "swapped reference"])
def test_a_planted_fault_changes_every_take_and_fails(spoken: Any, baseline: Run, fault: str) -> None:
    assert outcome(spoken(fault, fault), baseline) == ("fail", 0.0)


def test_half_the_steps_fail(spoken: Any, baseline: Run) -> None:
    kind, share = outcome(spoken("half", steps=2), baseline)
    assert kind == "fail" and share < 20


def test_an_ignored_seed_fails(spoken: Any) -> None:
    honest = spoken("two seeds", seeds=(0, 1))
    stuck = spoken("stuck", "ignored seed", seeds=(0, 1))
    assert repeat(stuck, honest).stuck == len(TEXTS)
    assert outcome(stuck, honest)[0] == "fail"


@pytest.mark.parametrize("fault", ["", "rounding"])
def test_a_repeated_run_passes(spoken: Any, baseline: Run, fault: str) -> None:
    assert outcome(spoken(f"again {fault}", fault), baseline) == ("pass", 100.0)
