"""Comparisons: items in common only, verdicts in words, and the regressions with both takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from fake_runs import fake_metrics, items, planned_run, rate_plan

from evaluation.compare import compare
from evaluation.errors import EvaluationError
from evaluation.items import Item
from evaluation.results.comparison import Comparison, Row
from evaluation.runs.folder import Run


def row(found: Comparison, name: str, group: str = "", level: str = "") -> Row:
    (one,) = [one for one in found.rows if (one.name, one.group, one.level) == (name, group, level)]
    return one


def two(folder: Path, wanted: list[Item], before: Mapping[str, float], after: Mapping[str, float]) -> list[Run]:
    return [planned_run(folder, "old", wanted, rate_plan(before)), planned_run(folder, "new", wanted, rate_plan(after))]


def rates_of(wanted: list[Item], seed: int) -> dict[str, float]:
    random = np.random.default_rng(seed)
    return {item.name: float(random.integers(0, 4)) / 10 for item in wanted}


def test_only_items_in_common_count_and_the_others_are_named(tmp_path: Path) -> None:
    wanted = items(30)
    rates = rates_of(wanted, 1)
    first = planned_run(tmp_path, "first", wanted[:25], rate_plan(rates))
    second = planned_run(tmp_path, "second", wanted[5:], rate_plan(rates))
    found = compare([first, second], fake_metrics())
    (missing,) = found.missing
    assert (missing.in_common, len(missing.only_baseline), len(missing.only_run)) == (20, 5, 5)
    assert missing.only_baseline[0] == "fake fake-en-0"
    one = row(found, "fake_words.wer")
    assert (one.items, one.difference, one.verdict) == (20, 0.0, "not told apart")
    assert "20 items in common" in found.text() and "fake fake-en-0" in found.text()


def test_a_worse_run_is_told_apart_and_its_worst_items_have_both_paths(tmp_path: Path) -> None:
    wanted = items(60)
    before = rates_of(wanted, 2)
    after = {name: rate + 0.05 * (number % 3) for number, (name, rate) in enumerate(before.items())}
    after["fake-en-7"] = 0.95
    runs = two(tmp_path, wanted, before, after)
    found = compare(runs, fake_metrics())
    one = row(found, "fake_words.wer")
    assert one.verdict == "worse" and one.low is not None and one.low > 0
    assert one.after - one.before == pytest.approx(one.difference)
    assert one.detectable is not None and one.detectable < one.difference
    worst = next(one for one in found.regressions if one.name == "fake_words.wer")
    assert worst.item_name == "fake-en-7" and worst.after == pytest.approx(95)
    assert worst.path_before and worst.path_after
    assert Path(worst.path_before).is_file() and Path(worst.path_after).is_file()
    assert "/old/" in worst.path_before and "/new/" in worst.path_after
    assert worst.path_after in found.text()
    assert json.loads(json.dumps(found.as_json()))["rows"]
    assert row(compare(runs[::-1], fake_metrics()), "fake_words.wer").verdict == "better"


def test_a_failed_take_is_a_regression_without_audio(tmp_path: Path) -> None:
    wanted = items(10)
    plan = rate_plan(rates_of(wanted, 3))
    first = planned_run(tmp_path, "first", wanted, plan)
    second = planned_run(
        tmp_path, "second", wanted, lambda item, seed: "crashed" if item.name == "fake-en-4" else plan(item, seed)
    )
    found = compare([first, second], fake_metrics())
    assert row(found, "fake_words.wer").items == 10
    worst = next(one for one in found.regressions if one.name == "fake_words.wer")
    assert (worst.item_name, worst.status_after, worst.after, worst.path_after) == ("fake-en-4", "error", 100, None)
    assert row(found, "takes.failed").difference == pytest.approx(10)


def test_groups_are_compared_and_a_difference_in_one_is_found(tmp_path: Path) -> None:
    wanted = items(80, voices=8)
    before = rates_of(wanted, 4)
    more = {item.name: 0.1 + int(item.name[-1]) / 100 for item in wanted if item.groups["speaker"] == "s3"}
    runs = two(tmp_path, wanted, before, {name: rate + more.get(name, 0) for name, rate in before.items()})
    found = compare(runs, fake_metrics())
    assert row(found, "fake_words.wer", "speaker", "s3").verdict == "worse"
    assert row(found, "fake_words.wer", "speaker", "s2").verdict == "not told apart"
    assert "speaker: s3" in found.text() and "speaker: s2" not in found.text()
    assert not [one for one in compare(runs, fake_metrics(), groups=False).rows if one.group]


def test_seeds_in_common_are_compared(tmp_path: Path) -> None:
    wanted = items(10)
    plan = rate_plan(rates_of(wanted, 5))

    def more_with_seeds(item: Item, seed: int) -> dict[str, float]:
        figures = plan(item, seed)
        assert isinstance(figures, Mapping)
        return {**figures, "wer": figures["wer"] + seed}

    first = planned_run(tmp_path, "first", wanted, more_with_seeds, seeds=(0, 1))
    second = planned_run(tmp_path, "second", wanted, more_with_seeds, seeds=(1, 2))
    assert row(compare([first, second], fake_metrics()), "fake_words.wer").difference == 0
    third = planned_run(tmp_path, "third", wanted, more_with_seeds, seeds=(5,))
    assert row(compare([first, third], fake_metrics()), "fake_words.wer").difference == pytest.approx(450)


def test_runs_without_a_common_item_cannot_be_compared(tmp_path: Path) -> None:
    wanted = items(4)
    plan = rate_plan(rates_of(wanted, 6))
    first = planned_run(tmp_path, "first", wanted[:2], plan)
    with pytest.raises(EvaluationError, match="no item in common"):
        compare([first, planned_run(tmp_path, "second", wanted[2:], plan)], fake_metrics())
    with pytest.raises(EvaluationError, match="two runs"):
        compare([first], fake_metrics())


def test_a_value_that_one_run_lacks_is_named(tmp_path: Path) -> None:
    wanted = items(6)
    rates = rates_of(wanted, 7)
    first = planned_run(tmp_path, "first", wanted, rate_plan(rates, floor_wer=0.1))
    second = planned_run(tmp_path, "second", wanted, rate_plan(rates), scored=False)
    (missing,) = compare([first, second], fake_metrics()).missing
    assert "fake_words.wer" in missing.values_only_baseline and not missing.values_only_run


def test_over_all_languages_each_counts_by_its_own_error_rate(tmp_path: Path) -> None:
    wanted = [*items(20, "en", "many-en"), *items(20, "ja", "many-ja")]
    before = rates_of(wanted, 8)
    found = compare(two(tmp_path, wanted, before, {name: rate + 0.2 for name, rate in before.items()}), fake_metrics())
    over_all = {one.name: one for one in found.rows if one.list == "all"}
    assert over_all.keys() == {"takes.failed", "fake_words.error"}
    # 20 points of WER in English, 10 of CER in Japanese.
    assert over_all["fake_words.error"].difference == pytest.approx(15)
    assert over_all["fake_words.error"].verdict == "worse" and over_all["fake_words.error"].items == 40
    units = {one.language: one.unit for one in found.rows if one.headline and one.name.startswith("fake_words.")}
    assert units == {"": "%", "en": "% WER", "ja": "% CER"}
    assert not [one for one in found.rows if one.language and one.name == "fake_words.error"]
