"""Clone of a clone: each round hears the round before, and every round is compared with the original clip."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from evaluation.errors import EvaluationError
from evaluation.items import Item
from evaluation.metrics.base import Plain, Take, Value, read_clip
from evaluation.runs.decay import decay, decay_figures, decay_table
from evaluation.systems.base import Ask, Speech

RATE = 16_000


class Copier:
    """Says the reference with half of its level, and remembers what it was given."""

    name, batch, seeded = "copier", 2, True

    def __init__(self, fails: str = "") -> None:
        self.asked: list[Ask] = []
        self.fails = fails

    def describe(self) -> dict[str, Any]:
        return {"kind": "copier"}

    def speak(self, asks: Sequence[Ask]) -> list[Speech | Exception]:
        self.asked += asks
        return [self._one(ask) for ask in asks]

    def _one(self, ask: Ask) -> Speech | Exception:
        assert ask.item.reference is not None
        if self.fails and self.fails in ask.item.text and "round" not in str(ask.item.reference):
            return ValueError("cannot")
        return Speech(read_clip(ask.item.reference, RATE) / 2, RATE)

    def close(self) -> None:
        self.asked = []


class Level(Plain):
    """The level relative to the item's reference."""

    name, version = "level", 1
    needs = frozenset({"audio", "reference"})
    schema = pa.schema([pa.field("ratio", pa.float64())])
    values: tuple[Value, ...] = (Value("ratio", "level", "%", "higher", failed=0.0, scale=100.0, digits=1),)

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        return [{"ratio": float(take.audio().max() / self._clip(take).max())} for take in takes]

    def _clip(self, take: Take) -> np.ndarray:
        assert take.item.reference is not None
        return read_clip(take.item.reference, RATE)


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """Two texts in one voice, one in another."""
    found = []
    for number, (voice, text) in enumerate([("a", "one"), ("a", "two"), ("b", "three")]):
        clip = tmp_path / f"{voice}.wav"
        soundfile.write(clip, 0.8 * np.sin(np.arange(1600) * (0.1 if voice == "a" else 0.2)), RATE)
        found.append(Item(text, "en", f"item{number}", reference=clip, reference_text=f"words of {voice}"))
    return found


def test_each_round_is_given_the_round_before_and_compared_with_the_original(items: list[Item], tmp_path: Path) -> None:
    system = Copier()
    runs = decay(system, items, 3, tmp_path / "out")
    assert [run.root.name for run in runs] == ["round-1", "round-2", "round-3"]
    assert [run.items for run in runs] == [runs[0].items] * 3
    rows = decay_figures(runs, [Level()])
    assert [row["level.ratio"] for row in rows] == pytest.approx([0.5, 0.25, 0.125], abs=1e-3)
    assert [row["round"] for row in rows] == [1, 2, 3] and all(row["failed"] == 0 for row in rows)
    assert json.loads((tmp_path / "out" / "decay.json").read_text()) == rows
    head, cells = decay_table(rows, [Level()])
    assert head == ["round", "takes", "failed", "level (%)"]
    assert cells == [["1", "3", "0", "50.0"], ["2", "3", "0", "25.0"], ["3", "3", "0", "12.5"]]
    assert decay_table([{"round": 1, "takes": 3, "failed": 0}], [Level()]) == (head[:3], [["1", "3", "0"]])


def test_the_reference_of_a_later_round_says_other_words_if_it_can(items: list[Item], tmp_path: Path) -> None:
    system = Copier()
    decay(system, items, 2, tmp_path / "out")
    second = {ask.item.text: ask.item for ask in system.asked[3:]}
    assert {text: item.reference_text for text, item in second.items()} == {
        "one": "two",
        "two": "one",
        "three": "three",
    }
    for item in second.values():
        assert item.reference is not None and "round-1" in str(item.reference)


def test_a_take_without_a_reference_fails_in_its_round_and_counts(items: list[Item], tmp_path: Path) -> None:
    runs = decay(Copier(fails="one"), items, 3, tmp_path / "out")
    rows = decay_figures(runs, [Level()])
    assert [row["failed"] for row in rows] == [1, 1, 1]
    assert rows[0]["level.ratio"] == pytest.approx((0.5 + 0.5 + 0) / 3, abs=1e-3)
    (error,) = [row["error"] for row in runs[1].generated.rows() if row["status"] != "ok"]
    assert "the take of the round before, which would be the reference, failed" in error
    # Round 2 fails for the text whose reference is missing, round 3 for the one after it.
    assert [{run.by_id[key[0]].text for key, row in run.generated.by_key().items() if row["status"] != "ok"} for run in runs] == [
        {"one"}, {"two"}, {"one"},
    ]  # fmt: skip


def test_run_again_it_speaks_nothing(items: list[Item], tmp_path: Path) -> None:
    decay(Copier(), items, 2, tmp_path / "out")
    again = Copier()
    decay(again, items, 2, tmp_path / "out")
    assert again.asked == []


def test_what_cannot_be_done_is_told(items: list[Item], tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="at least 2 rounds"):
        decay(Copier(), items, 1, tmp_path / "out")
    with pytest.raises(EvaluationError, match=r"1 items have no reference \(such as bare\)"):
        decay(Copier(), [*items, Item("x", "en", "bare")], 2, tmp_path / "out")
