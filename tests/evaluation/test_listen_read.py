"""Answers that are read back: a panel of made-up listeners, listeners to be left out, and files that are not answers."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from listening_panel import answer_sheet, make_items, make_run, read_key, write_sheets

from evaluation.errors import EvaluationError
from evaluation.items import Item
from evaluation.listen.differences import differences
from evaluation.listen.make import make_test
from evaluation.listen.read import Ratings, read_answers
from evaluation.listen.settings import ListenSettings
from evaluation.listen.tables import markdown
from evaluation.runs.folder import Run
from evaluation.statistics.mos import Rating

QUALITY = {"human": 4.4, "fine-system": 3.8, "plain-system": 3.0, "anchor-7000": 2.4, "anchor-3500": 1.6}
"""True quality on a scale from 1 to 5."""
Made = Callable[..., tuple[Path, dict[str, Any]]]


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    return make_items(tmp_path_factory.mktemp("clips"), 14, human=True, reference=True)


@pytest.fixture(scope="module")
def runs(items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    root = tmp_path_factory.mktemp("runs")
    return [make_run(root / name, items, name, 100 * n) for n, name in enumerate(("plain-system", "fine-system"))]


@pytest.fixture(scope="module")
def made(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Make a test once per kind; return its folder and key."""
    known: dict[str, Path] = {}

    def make(kind: str = "acr", **changes: Any) -> tuple[Path, dict[str, Any]]:
        if kind not in known:
            known[kind] = tmp_path_factory.mktemp("tests") / kind
            options = {"items": 12, "sessions": 40, "human": True, "headphone_trials": 3, "tone_s": 0.1, "seed": 3}
            make_test(runs, known[kind], ListenSettings(kind=kind, **{**options, **changes}))
        return known[kind], read_key(known[kind])

    return make


def quality(key: dict[str, Any], clip: str) -> float:
    row = key["clips"][clip]
    return QUALITY[row["system"] if row["use"] == "system" else row["use"]]


def rater(key: dict[str, Any]) -> Callable[[dict[str, Any], str, random.Random], Any]:
    """Listeners with a bias, items with ease, and noise."""

    def rate(trial: dict[str, Any], scale: str, rng: random.Random) -> Any:
        leaning = random.Random(trial["session"]).gauss(0, 0.5)
        ease = random.Random(trial["item"]).gauss(0, 0.3)
        if scale in trial["clips"]:
            heard = quality(key, scale)
            score = 20 * (heard - 0.5 + rng.gauss(0, 0.4)) + 5 * leaning
            return 100 if heard > 4 else round(min(100, max(0, score)))
        first, *rest = [quality(key, clip) for clip in trial["clips"]]
        if not rest:
            return min(5, max(1, round(first + leaning + ease + rng.gauss(0, 0.7))))
        over = rest[0] - first + rng.gauss(0, 0.7)
        if scale == "preference":
            return 0 if abs(over) < 0.4 else 1 if over > 0 else -1
        return min(3, max(-3, round(1.5 * over)))

    return rate


def panel(test: Path, key: dict[str, Any], folder: Path, count: int = 40, **options: Any) -> Ratings:
    sheets = [answer_sheet(key, number, rater(key)) for number in range(1, count + 1)]
    return read_answers(test, write_sheets(folder, sheets), draws=500, **options)


def test_forty_listeners_order_the_systems_with_honest_intervals(made: Made, tmp_path: Path) -> None:
    test, key = made()
    found = panel(test, key, tmp_path)
    assert (found.files, found.sheets, found.counted, found.incomplete) == (40, 40, 40, 0)
    assert not found.faults and not found.exclusions
    table = found.opinions["naturalness"]
    assert sorted(table, key=lambda name: -table[name].mean) == ["human", "fine-system", "plain-system"]
    for one in table.values():
        assert one.listeners == 40 and one.ratings == 40 * 4 and one.crossed and one.naive
        assert one.crossed[0] < one.mean < one.crossed[1]
        assert one.crossed[1] - one.crossed[0] > 1.3 * (one.naive[1] - one.naive[0])
    gaps = found.differences["naturalness"]
    assert list(gaps) == [("human", "fine-system"), ("human", "plain-system"), ("fine-system", "plain-system")]
    for (better, worse), gap in gaps.items():
        assert gap.crossed and gap.verdict == "better" and gap.mean == table[better].mean - table[worse].mean
        truth = QUALITY[better] - QUALITY[worse]
        assert gap.crossed[0] - 0.3 < truth < gap.crossed[1] + 0.3
    assert found.repeats.pairs == 40 and found.repeats.correlation is not None and found.repeats.correlation > 0.4
    text = markdown(found)
    assert "95 % (naive)" in text and "Listeners: 40 counted, 0 excluded" in text
    assert text.index("| human |") < text.index("| fine-system |") < text.index("| plain-system |")


def test_systems_that_do_not_differ_are_rarely_told_apart() -> None:
    wrong = 0
    for seed in range(40):
        rng = random.Random(seed)
        bias, ease = [rng.gauss(0, 0.5) for _ in range(12)], [rng.gauss(0, 0.4) for _ in range(12)]
        ratings = [
            Rating(str(who), str(what), "ab"[(who + what) % 2], 3 + bias[who] + ease[what] + rng.gauss(0, 0.7))
            for who in range(12)
            for what in range(12)
        ]
        gap = differences(ratings, draws=400)
        wrong += next(iter(gap.values())).verdict != "not told apart"
    assert wrong <= 4
    alone = differences([Rating("one", "x", "a", 3.0), Rating("one", "y", "b", 2.0)])
    assert alone["a", "b"].crossed is None and alone["a", "b"].mean == 1.0


@pytest.mark.parametrize("kind", ["cmos", "ab"])
def test_comparisons_give_the_same_order(made: Made, tmp_path: Path, kind: str) -> None:
    test, key = made(kind)
    found = panel(test, key, tmp_path, 24)
    assert found.strengths and found.strengths.systems == ("human", "fine-system", "plain-system")
    assert found.strengths.told_apart("human", "plain-system")
    assert set(found.versus) == {("fine-system", "human"), ("fine-system", "plain-system"), ("human", "plain-system")}
    for (first, second), one in found.versus.items():
        assert one.opinion.crossed and one.wins + one.ties + one.losses == one.opinion.ratings
        sign = 1 if QUALITY[first] > QUALITY[second] else -1
        assert sign * one.opinion.mean > 0 and min(sign * end for end in one.opinion.crossed) > 0
    text = markdown(found)
    assert "| fine-system over human |" in text and "| worse |" in text and "Bradley-Terry" in text


def test_mushra_leaves_out_listeners_who_miss_the_hidden_reference(made: Made, tmp_path: Path) -> None:
    test, key = made("mushra", items=5, sessions=10)
    good = [answer_sheet(key, number, rater(key)) for number in range(1, 10)]
    deaf = answer_sheet(key, 10, lambda trial, clip, rng: rng.randint(0, 80))
    found = read_answers(test, write_sheets(tmp_path, [*good, deaf]), draws=200)
    assert [(one.listener.split("-")[0], one.rule, one.detail) for one in found.exclusions] == [
        ("10", "reference", "below 90 in 5 of 5")
    ]
    table = found.opinions["quality"]
    assert sorted(table, key=lambda name: -table[name].mean) == list(QUALITY) and table["human"].mean == 100
    kept = read_answers(test, [tmp_path], draws=200, keep=["reference"])
    assert kept.counted == 10 and kept.exclusions[0].kept and kept.opinions["quality"]["human"].mean < 95


def test_each_rule_leaves_out_its_listener_and_can_be_switched_off(made: Made, tmp_path: Path) -> None:
    test, key = made()
    sheets = [answer_sheet(key, number, rater(key)) for number in range(1, 9)]

    def spoil(sheet: dict[str, Any], role: str) -> None:
        other = {"beeps": 1, "preference": -1, "quietest": 1}
        for answer in sheet["answers"]:
            if key["trials"][answer["trial"]]["role"] == role:
                ((name, value),) = answer["scores"].items()
                answer["scores"] = {name: other[name] if value != other[name] else -value if value < 0 else value + 1}
                if name == "preference":
                    answer["scores"] = {name: 0}

    for number, role in ((0, "headphone"), (1, "attention"), (2, "gold")):
        spoil(sheets[number], role)
    sheets[3] = answer_sheet(key, 4, lambda trial, scale, rng: 3)
    second = answer_sheet(key, 6, rater(key))
    sheets += [
        {**second, "who": "feedfeed", "started": "2026-02-02"},
        {**sheets[6], "answers": sheets[6]["answers"][:9]},
    ]
    paths = write_sheets(tmp_path, sheets)
    found = read_answers(test, paths, draws=100)
    assert [(one.rule, one.listener.split("-")[0]) for one in found.exclusions] == [
        ("duplicate", "6"),
        ("duplicate", "7"),
        ("headphones", "1"),
        ("attention", "2"),
        ("gold", "3"),
        ("variance", "4"),
    ]
    assert found.sheets == 10 and found.counted == 4
    assert {row.listener.split("-")[0] for row in found.rows} == {"5", "6", "7", "8"}
    assert len([row for row in found.rows if row.role == "main"]) == 4 * 12
    rules = ("duplicate", "headphones", "attention", "gold", "variance")
    everyone = read_answers(test, paths, draws=100, keep=rules)
    # The second file of one and the same person never counts, or the ratings would count twice.
    assert everyone.counted == 9 and sum(one.kept for one in everyone.exclusions) == 5
    assert "counts all the same" in markdown(everyone)
    with pytest.raises(EvaluationError, match="no rule headphone;"):
        read_answers(test, paths, keep=["headphone"])


def test_no_difference_throughout_is_an_honest_answer_in_pairs(made: Made, tmp_path: Path) -> None:
    test, key = made("ab")
    even = answer_sheet(key, 1, lambda trial, scale, rng: 0)
    left = answer_sheet(key, 2, lambda trial, scale, rng: -1)
    found = read_answers(test, write_sheets(tmp_path, [even, left]), draws=50)
    assert [(one.rule, one.listener.split("-")[0]) for one in found.exclusions] == [("variance", "2")]
    assert all(one.ties == one.opinion.ratings and one.opinion.mean == 0 for one in found.versus.values())


BAD_FILES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "answers to the test 'other'": lambda sheet: {**sheet, "test": "other"},
    "format 9": lambda sheet: {**sheet, "format": 9},
    "listener number 0": lambda sheet: {**sheet, "listener": 0},
    "listener number True": lambda sheet: {**sheet, "listener": True},
    "no random id": lambda sheet: {**sheet, "who": "../x"},
    "not a file of answers": lambda sheet: [sheet],
    "no usable answer": lambda sheet: {**sheet, "answers": [1, None, {}]},
}


def test_bad_files_are_named_and_the_rest_is_read(made: Made, tmp_path: Path) -> None:
    test, key = made()
    good = answer_sheet(key, 1, rater(key))
    paths = write_sheets(tmp_path / "good", [good])
    for number, change in enumerate(BAD_FILES.values()):
        paths.append(tmp_path / f"bad-{number}.json")
        paths[-1].write_text(json.dumps(change(answer_sheet(key, 2, rater(key)))))
    raw = {
        "cut.json": json.dumps(good)[:-40].encode(),
        "deep.json": b"[" * 100_000,
        "empty.json": b"",
        "b.json": b"\xff\xfe{",
    }
    for name, data in raw.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(data)
    paths.append(tmp_path / "absent.json")
    found = read_answers(test, paths, draws=50)
    assert (
        found.counted == 1 and found.bad_files == len(BAD_FILES) + len(raw) + 1 and found.files == found.bad_files + 1
    )
    messages = {fault.file.name: fault.message for fault in found.faults if fault.whole}
    for number, message in enumerate(BAD_FILES):
        assert message in messages[f"bad-{number}.json"]
    assert all("not valid JSON" in messages[name] for name in raw) and "cannot be read" in messages["absent.json"]
    assert all("\n" not in str(fault) and len(str(fault)) < 400 for fault in found.faults)


BAD_ANSWERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "naturalness is 6, not from 1 to 5": lambda answer: {**answer, "scores": {"naturalness": 6}},
    "naturalness is 2.5": lambda answer: {**answer, "scores": {"naturalness": 2.5}},
    "naturalness is True": lambda answer: {**answer, "scores": {"naturalness": True}},
    "naturalness is nan": lambda answer: {**answer, "scores": {"naturalness": float("nan")}},
    "naturalness is '4'": lambda answer: {**answer, "scores": {"naturalness": "4"}},
    "not one for each of: naturalness": lambda answer: {**answer, "scores": {"similarity": 3}},
    "unknown trial 'ffff'": lambda answer: {**answer, "trial": "ffff"},
    "other clips": lambda answer: {**answer, "clips": ["0" * 12]},
    "rated before everything was played": lambda answer: {**answer, "plays": {}},
    "not an object": lambda answer: "five",
}


def test_bad_answers_are_named_and_the_others_of_the_file_count(made: Made, tmp_path: Path) -> None:
    test, key = made()
    sheet = answer_sheet(key, 1, rater(key))
    other = answer_sheet(key, 2, rater(key))["answers"][0]
    main = [at for at, one in enumerate(sheet["answers"]) if key["trials"][one["trial"]]["role"] == "main"]
    for at, change in zip(main, BAD_ANSWERS.values(), strict=False):
        sheet["answers"][at] = change(sheet["answers"][at])
    sheet["answers"] += [other, sheet["answers"][-1]]
    found = read_answers(test, write_sheets(tmp_path, [sheet]), draws=50)
    messages = [fault.message for fault in found.faults]
    assert len(messages) == len(BAD_ANSWERS) + 2 and not found.bad_files and found.incomplete == 1
    for message in (*BAD_ANSWERS, "not one of this listener number", "answered twice"):
        assert sum(message in text for text in messages) == 1, message
    assert len([row for row in found.rows if row.role == "main"]) == 12 - len(BAD_ANSWERS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_file_of_answers_makes_reading_fail(made: Made, tmp_path: Path, data: st.DataObject) -> None:
    test, key = made()
    good, bad = (answer_sheet(key, number, rater(key)) for number in (1, 2))
    bad = copy.deepcopy(bad)
    for _ in range(data.draw(st.integers(1, 3))):
        at: Any = bad
        while True:
            name = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
            deeper = isinstance(at[name], dict | list) and len(at[name])
            if not deeper or data.draw(st.booleans()):
                break
            at = at[name]
        at[name] = data.draw(JSON)
    found = read_answers(test, write_sheets(tmp_path, [good, bad]), draws=20)
    assert found.files == 2 and any(row.listener.startswith("1-") for row in found.rows)
    assert all(1 <= row.score <= 5 for row in found.rows)
    markdown(found)


def test_without_a_key_or_an_answer_the_message_says_what_to_do(made: Made, tmp_path: Path) -> None:
    test, _ = made()
    with pytest.raises(EvaluationError, match="is not the key of a listening test"):
        read_answers(tmp_path, [])
    with pytest.raises(EvaluationError, match="no usable file of answers"):
        read_answers(test, [])
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(EvaluationError, match=r"1 cannot be used.*bad\.json"):
        read_answers(test, [tmp_path])


def test_a_file_that_is_half_done_counts_for_what_it_has(made: Made, tmp_path: Path) -> None:
    test, key = made()
    sheet = answer_sheet(key, 45, rater(key))
    sheet["answers"] = sheet["answers"][:10]
    found = read_answers(test, write_sheets(tmp_path, [sheet]), draws=20)
    assert found.incomplete == 1 and found.counted == 1 and 0 < len(found.rows) < 10
    # The 45th listener has the plan of the fifth.
    assert {key["trials"][row.trial]["session"] for row in found.rows} == {5}
    assert markdown(found).count("–") >= 3
