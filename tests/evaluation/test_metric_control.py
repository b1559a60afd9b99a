"""The control panel: its grid, and the metric on real speech whose changes are known because they were planted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from altered_speech import RATE, read, shifted, sped, stretched

from evaluation.errors import EvaluationError
from evaluation.items import Item, write_items
from evaluation.lists import open_lists
from evaluation.lists.control import LEVELS, TEXTS, control_items
from evaluation.lists.control import read as read_panel
from evaluation.metrics import load_metrics
from evaluation.metrics.control import changes
from evaluation.metrics.voice_measures import measure
from evaluation.runs.folder import create_run
from evaluation.runs.generate import generate
from evaluation.runs.score import score, table_of
from evaluation.systems.base import Ask, Speech

Row = dict[str, Any]
TEXT = "Kids are talking by the door."


def test_every_item_has_its_neutral_partner() -> None:
    items = control_items()
    assert len({item.id for item in items}) == len(items) == 2 * 8 * (1 + 4 * len(LEVELS) + 1)
    by_pair: dict[str, list[Item]] = {}
    for item in items:
        by_pair.setdefault(item.groups["pair"], []).append(item)
    for pair in by_pair.values():
        assert [item.groups["attribute"] for item in pair].count("neutral") == 1
        assert len({(item.text, item.groups["person"]) for item in pair}) == 1
        assert len({item.instruction for item in pair}) == len(pair)
    persons = [item.groups["person"] for item in items if item.groups["attribute"] == "pitch"]
    assert persons.count("male") == persons.count("female")


def test_texts_and_instructions_are_in_their_language() -> None:
    for item in control_items():
        for words in (item.text, item.instruction):
            assert (max(words) > "\u4e00") == (item.language == "zh") and "{" not in words


def test_references_name_no_person(tmp_path: Path) -> None:
    clips = []
    for number in range(2):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(bytes([number]))
        clips.append(Item("hello", "en", reference=path, reference_text=f"words {number}"))
    items = control_items(("en",), texts=4, references=clips)
    assert len(items) == 4 * (1 + 4 * len(LEVELS)) and {item.reference for item in items} == {
        c.reference for c in clips
    }
    assert not any("man" in item.instruction or "person" in item.groups for item in items)
    write_items(tmp_path / "list.jsonl", clips)
    assert [item.id for item in read_panel(str(tmp_path / "list.jsonl"), language="en", texts=4)] == [
        item.id for item in items
    ]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"languages": ("fr",)}, r"no language 'fr'; known: en, zh"),
        ({"attributes": ("mood",)}, r"no attribute 'mood'; known: gender, pitch, rate, energy, range"),
        ({"levels": (3,)}, r"no level 3"),
    ],
)
def test_unknown_names_are_told(given: dict[str, Any], told: str) -> None:
    with pytest.raises(EvaluationError, match=told):
        control_items(**given)


def test_the_panel_is_a_list_with_options() -> None:
    assert [item.id for item in open_lists(["control"])] == [item.id for item in control_items()]
    assert open_lists(["control:,language=zh,texts=2"]) == control_items(("zh",), 2)
    for texts in ("0", "9", "2.5"):
        with pytest.raises(EvaluationError, match=f"texts={texts} is not a whole number from 1 to 8"):
            open_lists([f"control:,texts={texts}"])


class Obeys:
    """Speaks with a real voice, changed as an instruction asks, or otherwise."""

    name, batch, seeded = "obeys", 64, True

    def __init__(self, voices: dict[str, np.ndarray], change: Callable[[np.ndarray, str, int], np.ndarray]) -> None:
        self.voices, self.change = voices, change

    def describe(self) -> dict[str, Any]:
        return {"kind": "obeys"}

    def speak(self, asks: Sequence[Ask]) -> list[Speech | Exception]:
        return [self._one(ask.item) for ask in asks]

    def _one(self, item: Item) -> Speech | Exception:
        samples = self.voices[item.groups["person"]]
        changed = self.change(samples, item.groups["attribute"], int(item.groups["level"]))
        return Speech(changed, RATE) if len(changed) else ValueError("crashed")

    def close(self) -> None:
        self.voices = {}


@pytest.fixture(scope="module")
def voices(corpora: Path) -> dict[str, np.ndarray]:
    """A man's and a woman's neutral sentence."""
    names = {"male": "actor_01/03-01-01-01-01-01-01.flac", "female": "actor_02/03-01-01-01-01-01-02.flac"}
    return {person: read(corpora / "ravdess" / name) * 0.5 for person, name in names.items()}


def honest(samples: np.ndarray, attribute: str, level: int) -> np.ndarray:
    if attribute == "pitch":
        return shifted(samples, 2.0 * level)
    if attribute == "rate":
        return stretched(samples, 1.15**-level)
    if attribute == "energy":
        return samples * 10 ** (3 * level / 20)
    return samples


def rows_of(
    system: Obeys, folder: Path, attributes: Sequence[str] = ("gender", "pitch", "rate", "energy")
) -> list[Row]:
    items = control_items(("en",), 2, attributes)
    run = create_run(folder, {"system": system.describe()}, items, (1,))
    generate(run, system)
    metrics = load_metrics(["control"])
    scored = score(run, metrics)
    if scored.not_measured:
        pytest.skip(scored.not_measured["control"])
    found = table_of(run, metrics[0], {"control": metrics[0]}).by_key()
    return [{**run.by_id[item_id].groups, **row} for (item_id, _), row in found.items()]


@pytest.fixture(scope="module")
def obeyed(voices: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return rows_of(Obeys(voices, honest), tmp_path_factory.mktemp("control") / "run")


def of(rows: Sequence[Row], attribute: str) -> list[Row]:
    return [row for row in rows if row["attribute"] == attribute]


def test_an_obedient_voice_is_right_everywhere_and_leaks_nothing(obeyed: list[Row]) -> None:
    asked = [row for row in obeyed if row["attribute"] != "neutral"]
    assert len(asked) == 2 * 3 * len(LEVELS)
    assert all(row["right"] == row["clear"] == 1.0 and row["rank"] == pytest.approx(1.0) for row in asked), asked
    assert all(row["leak"] == 0.0 for row in of(obeyed, "energy"))
    # The stretching of a short clip may move its measured range.
    assert np.mean([row["leak"] for row in asked]) < 0.1


@pytest.mark.parametrize(("attribute", "unit", "within"), [("pitch", 2.0, 0.3), ("energy", 3.0, 0.2)])
def test_the_change_is_measured_as_it_was_planted(
    obeyed: list[Row], attribute: str, unit: float, within: float
) -> None:
    for row in of(obeyed, attribute):
        assert row[f"{attribute}_change"] == pytest.approx(unit * int(row["level"]), abs=within)


def test_the_rate_is_that_of_the_speech_without_the_silence(voices: dict[str, np.ndarray]) -> None:
    plain = voices["male"]
    padded = np.pad(stretched(plain, 0.8), (8000, 16000))
    found = changes(vars(measure(padded, TEXT)), vars(measure(plain, TEXT)))
    assert found["rate"] == pytest.approx(25.0, abs=4.0)


def test_the_gender_of_real_voices_is_right_and_swapped_it_is_wrong(
    obeyed: list[Row], voices: dict[str, np.ndarray], tmp_path: Path
) -> None:
    assert [row["gender_right"] for row in of(obeyed, "neutral")] == [1.0] * 4
    swapped = {"male": voices["female"], "female": voices["male"]}
    rows = rows_of(Obeys(swapped, honest), tmp_path / "run", ("gender",))
    assert [row["gender_right"] for row in rows] == [0.0] * 4


def test_a_tape_that_runs_faster_leaks_into_the_other_attribute(voices: dict[str, np.ndarray], tmp_path: Path) -> None:
    def tape(samples: np.ndarray, attribute: str, level: int) -> np.ndarray:
        return sped(samples, 1.15**level) if attribute in ("pitch", "rate") else samples

    rows = rows_of(Obeys(voices, tape), tmp_path / "run", ("pitch", "rate"))
    for row in (*of(rows, "pitch"), *of(rows, "rate")):
        # One of the three others moves with it; the range may seem to, since the tracker loses frames.
        assert row["right"] == 1.0 and row["leak"] >= 1 / 3


def test_a_voice_that_does_the_opposite_is_wrong(voices: dict[str, np.ndarray], tmp_path: Path) -> None:
    rows = rows_of(
        Obeys(voices, lambda samples, name, level: honest(samples, name, -level)), tmp_path / "run", ("energy",)
    )
    assert all(row["right"] == 0.0 and row["rank"] == pytest.approx(-1.0) for row in of(rows, "energy"))


def test_a_voice_that_ignores_the_instruction_is_not_right(voices: dict[str, np.ndarray], tmp_path: Path) -> None:
    rows = rows_of(Obeys(voices, lambda samples, name, level: samples), tmp_path / "run", ("pitch",))
    assert all(row["right"] == row["rank"] == row["leak"] == 0.0 for row in of(rows, "pitch"))


def test_failed_takes_count_as_wrong_and_those_without_a_partner_do_not_count(
    voices: dict[str, np.ndarray], tmp_path: Path
) -> None:
    def crashes(samples: np.ndarray, attribute: str, level: int) -> np.ndarray:
        broken = level == 2 if samples is voices["male"] else attribute == "neutral"
        return samples[:0] if broken else honest(samples, attribute, level)

    rows = rows_of(Obeys(voices, crashes), tmp_path / "run", ("energy",))
    assert sorted((int(r["level"]), r["right"]) for r in of(rows, "energy") if r["person"] == "male") == [
        (-2, 1.0), (-1, 1.0), (1, 1.0), (2, 0.0),
    ]  # fmt: skip
    assert {row["right"] for row in of(rows, "energy") if row["person"] == "female"} == {None}


def test_the_panels_texts_are_told_apart() -> None:
    for texts in TEXTS.values():
        assert len(set(texts)) == len(texts) == 8
