"""Takes of one seed are compared with those of another build: rounding is the same, a planted change is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_runs import RATE, Hum, toy_items, toy_settings

from evaluation.items import Item
from evaluation.repeat import distance, repeat
from evaluation.runs.folder import Run, create_run
from evaluation.runs.generate import generate
from evaluation.systems.base import Ask, Speech


class Voice(Hum):
    """Five tones whose pitches depend on item and seed, and a change of them to plant."""

    def __init__(self, wrong_seed: int = 0, no_seed: bool = False, detune: float = 1.0, noise: float = 0.0) -> None:
        super().__init__()
        self._change = (wrong_seed, no_seed, detune, noise)

    def _answer(self, ask: Ask) -> Speech | Exception:
        if "crash" in ask.item.text:
            return super()._answer(ask)
        wrong_seed, no_seed, detune, noise = self._change
        seed = 0 if no_seed else ask.seed + wrong_seed
        draws = np.random.default_rng([seed, *ask.item.text.encode()])
        times = np.arange(RATE) / RATE
        tones = sum(np.sin(2 * np.pi * detune * pitch * times) for pitch in draws.uniform(100, 4000, 5))
        rounding = np.random.default_rng().normal(size=RATE) * noise
        return Speech((0.1 * tones + rounding).astype(np.float32), RATE)


def spoken(folder: Path, system: Hum, items: list[Item] | None = None, seeds: tuple[int, ...] = (0, 1)) -> Run:
    run = create_run(folder, toy_settings(system), items or toy_items(6), seeds)
    generate(run, system)
    return run


def test_an_unchanged_system_gives_the_same_bytes(tmp_path: Path) -> None:
    found = repeat(spoken(tmp_path / "a", Voice()), spoken(tmp_path / "b", Voice()))
    assert (found.pairs, found.equal, found.same, found.distance, found.share) == (12, 12, 12, 0.0, 1.0)
    assert found.seeds > 1.0


def test_rounding_is_the_same_take(tmp_path: Path) -> None:
    found = repeat(spoken(tmp_path / "a", Voice(noise=1e-6)), spoken(tmp_path / "b", Voice(noise=1e-6)))
    assert found.equal == 0
    assert found.share == 1.0


@pytest.mark.parametrize("change", [{"wrong_seed": 7}, {"detune": 1.05}, {"noise": 0.02}])
def test_a_planted_change_is_not(tmp_path: Path, change: dict[str, Any]) -> None:
    found = repeat(spoken(tmp_path / "a", Voice(**change)), spoken(tmp_path / "b", Voice()))
    assert found.share == 0.0
    assert found.stuck == 0


def test_a_seed_that_is_ignored_is_told(tmp_path: Path) -> None:
    found = repeat(spoken(tmp_path / "a", Voice(no_seed=True)), spoken(tmp_path / "b", Voice()))
    assert found.stuck == 6
    assert found.share == 0.5  # seed 0 is what it was


def test_a_take_that_fails_now_is_not_the_same(tmp_path: Path) -> None:
    run = spoken(tmp_path / "a", Voice())
    for part in run.generated.folder.iterdir():
        part.unlink()
    items = run.items
    broken = Voice()
    broken._answer = lambda ask: RuntimeError("gone") if ask.item.id == items[0].id else Voice()._answer(ask)  # type: ignore[method-assign]
    generate(run, broken)
    found = repeat(run, spoken(tmp_path / "b", Voice()))
    assert (found.pairs, found.failed) == (10, 2)
    assert found.share == 10 / 12


_CLIP = st.integers(0, 2**16).map(lambda seed: np.random.default_rng(seed).normal(size=4000).astype(np.float32) * 0.1)


@given(one=_CLIP, other=_CLIP)
def test_the_distance_is_symmetric_and_zero_for_equal_clips(one: np.ndarray, other: np.ndarray) -> None:
    assert distance(one, one) == 0.0
    assert distance(one, other) == pytest.approx(distance(other, one))
    assert distance(one, np.concatenate([one, one])) > distance(one, one)
