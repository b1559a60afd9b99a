"""What could make a comparison unfair or a gate pass without evidence: takes that are missing, failed, stale or unmeasurable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from toy_runs import Hum, Peak, toy_items, toy_settings

from evaluation.compare import compare
from evaluation.errors import SpeakError
from evaluation.gate import gate
from evaluation.items import Item
from evaluation.metrics import load_metrics
from evaluation.metrics.base import Plain, Take, Value
from evaluation.results.figures import read_figures
from evaluation.results.rules import Rule
from evaluation.runs.folder import Run, create_run
from evaluation.runs.generate import generate
from evaluation.runs.score import score, table_of
from evaluation.statistics.paired import judged, paired_differences
from evaluation.systems.base import Ask, Speech


class Given(Plain):
    """A metric whose figure is a function of the take."""

    name = "given"
    version = 1
    schema = pa.schema([pa.field("figure", pa.float64())])

    def __init__(self, figure: Callable[[Take], float | None], value: Value | None = None) -> None:
        self.figure = figure
        self.values = (value or Value("figure", "figure", "", "higher", smallest=0.01),)

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        return [None if (found := self.figure(take)) is None else {"figure": found} for take in takes]


class Failing(Hum):
    """Fails for chosen seeds or texts."""

    def __init__(self, fails: Callable[[Ask], bool]) -> None:
        super().__init__()
        self.fails = fails

    def _answer(self, ask: Ask) -> Speech | Exception:
        return SpeakError("no") if self.fails(ask) else super()._answer(ask)


def run_of(folder: Path, system: Hum, items: Sequence[Item], seeds: Sequence[int]) -> Run:
    run = create_run(folder, {**toy_settings(system), "name": folder.name}, items, seeds)
    generate(run, system)
    return run


def test_a_run_that_was_killed_between_seeds_passes_no_gate(tmp_path: Path) -> None:
    whole = run_of(tmp_path / "whole", Hum(), toy_items(25), (0, 1))
    part = run_of(tmp_path / "part", Hum(), toy_items(25), (0,))
    create_run(part.root, toy_settings(Hum()), [], (0, 1))
    found = gate(Run(part.root), whole, [Rule("takes.failed")], [])
    assert found.exit_code == 3
    assert "25 takes of" in found.outcomes[0].reason


def test_a_failed_take_does_not_spare_its_counterpart(tmp_path: Path) -> None:
    metric = Given(lambda take: 0.8 - 0.2 * take.seed)
    honest = run_of(tmp_path / "honest", Hum(), toy_items(25), (0, 1))
    failing = run_of(tmp_path / "failing", Failing(lambda ask: ask.seed == 1), toy_items(25), (0, 1))
    for run in (honest, failing):
        score(run, [metric])
    (row,) = [row for row in compare([honest, failing], [metric]).rows if row.name == "given.figure" and not row.group]
    assert (row.difference, row.verdict) == (0.0, "not told apart")


def test_a_baseline_that_is_half_scored_passes_no_gate(tmp_path: Path) -> None:
    items = toy_items(40)
    metric = Given(lambda take: 0.8)
    half = Given(lambda take: 0.8 if int(take.item.name[1:]) < 20 else None)
    runs = [run_of(tmp_path / name, Hum(), items, (0,)) for name in ("before", "after")]
    score(runs[0], [half])
    score(runs[1], [metric])
    found = gate(runs[1], runs[0], [Rule("given.figure")], [metric])
    (one,) = [one for one in found.outcomes if one.value == "given.figure"]
    assert (one.kind, found.exit_code) == ("items missing", 3)


class Company(Peak):
    """How many takes were scored together."""

    name = "company"

    def group(self, take: Take) -> str | None:
        return "all"

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        return [{"peak": float(len(takes))} for _ in takes]


def test_figures_of_several_takes_are_those_of_all_of_them(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", Hum(), toy_items(2), (0,))
    score(run, [Company()])
    run = run_of(tmp_path / "run", Hum(), toy_items(5), (0,))
    assert score(run, [Company()]).rows == {"company": 5}
    assert {row["peak"] for row in table_of(run, Company(), {}).rows()} == {5.0}


def test_a_figure_that_depends_on_the_other_items_is_compared_on_the_same_list_only(tmp_path: Path) -> None:
    metric = Given(lambda take: float(len(take.item.text)), Value("figure", "figure", "", "higher", relative=True))
    small, large = (run_of(tmp_path / str(count), Hum(), toy_items(count), (0,)) for count in (12, 20))
    again = run_of(tmp_path / "again", Hum(), toy_items(12), (0,))
    for run in (small, large, again):
        score(run, [metric])
    assert "given.figure" not in {row.name for row in compare([small, large], [metric]).rows}
    assert "given.figure" in {row.name for row in compare([small, again], [metric]).rows}


def test_an_item_that_is_given_again_has_its_new_groups_and_recording(tmp_path: Path) -> None:
    items = toy_items(3)
    run_of(tmp_path / "run", Hum(), items, (0,))
    run = run_of(tmp_path / "run", Hum(), [replace(items[1], groups={"speaker": "s"})], (0,))
    assert [item.groups.get("speaker") for item in run.items] == [None, "s", None]


def test_a_language_that_could_not_be_measured_has_no_figure_although_a_take_failed(tmp_path: Path) -> None:
    texts = [Item(f"text {number}", "xx") for number in range(4)] + [Item("this will crash", "xx"), Item("crash", "en")]
    run = run_of(tmp_path / "run", Hum(), texts, (0,))
    metric = Given(lambda take: None, Value("figure", "error", "%", "lower", failed=1.0))
    score(run, [metric])
    found = read_figures(run, [metric]).series["given.figure"].figures
    assert [run.by_id[key[0]].language for key in found] == ["en"]


def test_the_floor_is_that_of_the_same_recognizer() -> None:
    made = load_metrics(["transcript", "human_transcript"], {"transcript": {"model": "whisper-tiny-en"}})
    assert [metric.settings()["model"] for metric in made] == ["whisper-tiny-en"] * 2


@pytest.mark.parametrize("speakers", [4, 5, 6, 8, 10, 12, 30])
def test_a_large_difference_is_found_with_any_number_of_voices(speakers: int) -> None:
    draws = np.random.default_rng(speakers)
    names = [f"s{number}" for number in range(speakers) for _ in range(20)]
    before = np.repeat(draws.normal(2, 1, (len(names), 1)), 27, axis=1)
    after = before.copy()
    after[:, 0] += draws.normal(58, 5, len(names))
    found = judged(paired_differences(before, after, ["lower"] * 27, names))
    assert [one.verdict for one in found if one] == ["worse"] + ["not told apart"] * 26
