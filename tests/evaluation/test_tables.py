"""Tables: a unit in each cell, nothing bold that is not told apart, failures beside, published figures marked."""

from __future__ import annotations

import re
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from fake_runs import fake_metrics, items, planned_run, rate_plan

from evaluation.metrics import METRICS
from evaluation.results.anchors import anchors, anchors_of
from evaluation.results.units import paper_unit
from evaluation.runs.folder import Run
from evaluation.tables import markdown


def rows(text: str) -> list[list[str]]:
    """Return the cells of all lines of tables."""
    return [[part.strip() for part in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def runs(folder: Path, list_name: str = "fake", language: str = "en", step: float = 0.1, count: int = 60) -> list[Run]:
    """Return two runs; of the second, the error rate is higher by `step` on every second item."""
    random = np.random.default_rng(1)
    wanted = items(count, language, list_name)
    rates = {item.name: float(random.integers(0, 3)) / 10 for item in wanted}
    worse = {name: rate + (step if number % 2 else 0.0) for number, (name, rate) in enumerate(rates.items())}
    return [planned_run(folder, "good", wanted, rate_plan(rates)), planned_run(folder, "bad", wanted, rate_plan(worse))]


def test_the_better_system_is_bold_if_it_is_told_apart(tmp_path: Path) -> None:
    text = markdown(runs(tmp_path), fake_metrics())
    good, bad = (next(row for row in rows(text) if name in row) for name in ("good", "bad"))
    assert good[:5] == ["fake", "en", "good", "60", "0 of 60"]
    assert re.fullmatch(r"\*\*\d+\.\d\d \[\d+\.\d\d, \d+\.\d\d\] % WER\*\*", good[5]), good
    assert re.fullmatch(r"\d+\.\d\d \[\d+\.\d\d, \d+\.\d\d\] % WER", bad[5]), bad
    assert good[6].endswith("% CER**")


def test_nothing_is_bold_without_a_proof_or_with_one_run(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    wanted = items(60)
    plans = [rate_plan({item.name: float(random.integers(0, 3)) / 10 for item in wanted}) for _ in range(2)]
    both = [planned_run(tmp_path, name, wanted, plan) for name, plan in zip("ab", plans, strict=True)]
    text = markdown(both, fake_metrics())
    assert "% WER" in text and "**" not in text
    assert "**" not in markdown(runs(tmp_path)[:1], fake_metrics())


def test_failures_and_what_is_not_measured_stand_beside(tmp_path: Path) -> None:
    wanted = items(10)
    good = rate_plan({item.name: 0.1 for item in wanted})
    run = planned_run(
        tmp_path, "a", wanted, lambda item, seed: {"0": "crashed", "1": None}.get(item.name[-1], good(item, seed))
    )
    text = markdown([run], fake_metrics())
    (row,) = [row for row in rows(text) if "a" in row]
    assert row[3:5] == ["10", "1 of 10 (1 error)"]
    assert row[5].endswith("(1 not measured)")
    assert "* a: fake_voice: " in text


def test_values_that_are_all_equal_have_no_interval_and_say_so(tmp_path: Path) -> None:
    wanted = items(10)
    run = planned_run(tmp_path, "a", wanted, rate_plan({item.name: 0.1 for item in wanted}))
    text = markdown([run], fake_metrics())
    assert "10.00 [–] % WER" in text
    assert "[–]: no interval can be estimated (all 10 items have the same value)" in text


def test_languages_share_a_table_and_the_mean_counts_their_units(tmp_path: Path) -> None:
    wanted = [*items(10, "en", "many-en"), *items(10, "ja", "many-ja")]
    rates = {item.name: number / 100 for number, item in enumerate(wanted)}
    text = markdown([planned_run(tmp_path, "a", wanted, rate_plan(rates))], fake_metrics())
    assert text.count("## many") == 1
    (mean,) = [row for row in rows(text) if row[0].startswith("WER or CER")]
    assert mean[2] == "2 (1 WER, 1 CER)" and mean[3].endswith("%")
    assert mean[3].startswith(f"{(4.5 + 14.5 / 2) / 2:.2f} [")


def test_published_figures_stand_below_with_their_source(tmp_path: Path) -> None:
    text = markdown(runs(tmp_path, "seed-en")[:1], fake_metrics())
    published = {row[0]: row for row in rows(text) if len(row) == 4}
    assert published["VoxCPM2"][2] == "1.84 % WER, 75.3 % SIM"
    assert "[1] OpenBMB/VoxCPM README" in text and published["VoxCPM2"][3] == "[1]"
    assert published["VoxCPM2 (re-run)"][2] == "1.643 % WER, 75.25 % SIM"
    assert "Published" not in markdown(runs(tmp_path / "other")[:1], fake_metrics())


def test_published_figures_are_complete_and_have_units() -> None:
    assert {one.list for one in anchors()} >= {"seed-en", "seed-zh", "seed-hard", "cv3-hard-en", "cv3-ru"}
    assert all(one.unit == "%" and one.source and one.judges for one in anchors())
    assert [one.figure for one in anchors_of(["seed-hard"]) if one.system == "VoxCPM2"] == [8.13, 75.3]
    assert [one.spread for one in anchors_of(["cv3-hard-en"]) if one.spread] == [1.77]


def test_the_published_mean_over_30_languages_mixes_11_cer_and_19_wer() -> None:
    found = [one for one in anchors() if one.list.startswith("internal-")]
    assert len(found) == 30 and np.mean([one.figure for one in found]) == pytest.approx(1.68, abs=0.005)
    assert sum(one.figure < 3 for one in found) == 29 and sum(one.figure < 1 for one in found) == 7
    assert all(one.measure == paper_unit(one.list.rpartition("-")[2]) for one in found)
    assert sum(one.measure == "CER" for one in found) == 11


def test_published_arabic_and_hindi_are_wer_for_one_system_and_cer_for_the_other() -> None:
    found = {(one.list, one.system): one.measure for one in anchors() if one.measure != "SIM"}
    for name in ("minimax-ar", "minimax-hi"):
        assert (found[name, "VoxCPM2"], found[name, "MiniMax-Speech"]) == ("WER", "CER")


def test_wide_tables_are_split_and_runs_of_one_name_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.tables.WIDE", 1)
    first = runs(tmp_path / "x", count=8)[0]
    second = runs(tmp_path / "y", count=8)[0]
    text = markdown([first, second], fake_metrics())
    assert text.count("| list | language | system |") == 2
    assert str(first.root) in text and str(second.root) in text


def test_chosen_values_only(tmp_path: Path) -> None:
    text = markdown(runs(tmp_path, count=8), fake_metrics(), ["fake_words.cer"])
    assert "% CER" in text and "% WER" not in text


def test_metrics_are_those_of_the_table_by_default(tmp_path: Path) -> None:
    # `patch.dict` gives the table back in its order, on which scoring relies; `monkeypatch.delitem` does not.
    with patch.dict(METRICS, {"fake_words": "fake_runs:Rates"}, clear=True):
        assert "% WER" in markdown(runs(tmp_path, count=8))
