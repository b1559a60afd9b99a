"""Runs: each failure counted and named, nothing made twice, and scores that are only computed where they are missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from toy_runs import DoublePeak, Hum, Peak, run_folder, toy_items, toy_settings

from catalogs.weights.verify import WeightsMissing
from evaluation.compare import compare
from evaluation.errors import EvaluationError
from evaluation.items import Item
from evaluation.metrics import METRICS
from evaluation.metrics.base import Metric, Take, fingerprint
from evaluation.results.figures import read_figures
from evaluation.run import evaluate, rescore
from evaluation.runs.folder import Run, create_run, open_run
from evaluation.runs.forecast import forecast
from evaluation.runs.generate import failures, generate, statuses
from evaluation.runs.score import all_takes, score, table_of, values_of
from evaluation.systems import open_system
from evaluation.systems.base import Ask, Speech


def made(tmp_path: Path, items: Sequence[Item], seeds: Sequence[int] = (0,), batch: int = 1) -> tuple[Run, Hum]:
    system = Hum(batch)
    run = create_run(run_folder(tmp_path), toy_settings(system), items, seeds)
    generate(run, system)
    return run, system


def test_each_failure_is_counted_under_its_name(tmp_path: Path) -> None:
    texts = ["fine", "crash", "late", "empty", "mute", "endless"]
    run, _ = made(tmp_path, [Item(text, "en") for text in texts])
    assert statuses(run) == {"ok": 1, "error": 1, "timeout": 1, "empty": 1, "silent": 1, "too_long": 1}
    rows = {run.by_id[key[0]].text: row for key, row in run.generated.by_key().items()}
    assert rows["crash"]["error"] == "the model crashed on two lines"
    assert {text for text, row in rows.items() if row["audio"]} == {"fine", "mute", "endless"}


def test_what_was_spoken_is_not_spoken_again_and_a_list_may_grow(tmp_path: Path) -> None:
    run, first = made(tmp_path, toy_items(5), batch=2)
    assert len(first.asked) == 5
    before = run.generated.by_key()
    run, second = made(tmp_path, toy_items(7), seeds=(0, 1))
    assert len(second.asked) == 2 + 7
    after = run.generated.by_key()
    assert {key: after[key] for key in before} == before
    assert len(after) == 14


def test_a_run_of_another_system_is_refused(tmp_path: Path) -> None:
    made(tmp_path, toy_items(1))
    with pytest.raises(EvaluationError, match="another system or settings"):
        create_run(run_folder(tmp_path), {"system": {"kind": "drum"}}, toy_items(1), [0])


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(EvaluationError, match="not an evaluation run"):
        create_run(tmp_path, {"system": {}}, toy_items(1), [0])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(EvaluationError, match=r"no run\.json"):
        open_run(tmp_path)


class Stopping(Hum):
    """Ends the process's work in the middle, as Ctrl-C does."""

    def speak(self, asks: Any) -> Any:
        if len(self.asked) == 3:
            raise KeyboardInterrupt
        return super().speak(asks)


def test_a_stopped_run_continues_to_the_same_rows(tmp_path: Path) -> None:
    whole, _ = made(tmp_path / "whole", toy_items(6))
    system = Stopping()
    run = create_run(run_folder(tmp_path), toy_settings(system), toy_items(6), [0])
    with pytest.raises(KeyboardInterrupt):
        generate(run, system)
    run, later = made(tmp_path, toy_items(6))
    assert len(later.asked) == 3
    assert run.generated.by_key() == whole.generated.by_key()


def test_scores_are_computed_once_and_for_new_takes(tmp_path: Path) -> None:
    Peak.calls.clear()
    run, _ = made(tmp_path, [*toy_items(3), Item("crash", "en")])
    metrics: list[Metric] = [Peak(), DoublePeak()]
    assert score(run, metrics).rows == {"peak": 3, "double": 3}
    assert score(run, metrics).rows == {"peak": 0, "double": 0}
    run, _ = made(tmp_path, toy_items(4))
    assert score(run, metrics).rows == {"peak": 1, "double": 1}
    assert len(Peak.calls) == 4
    peaks = values_of(table_of(run, metrics[0], {}).by_key(), "peak")
    doubles = values_of(table_of(run, metrics[1], {m.name: m for m in metrics}).by_key(), "double")
    assert doubles == {item: [2 * value for value in figures] for item, figures in peaks.items()}


def test_a_changed_metric_scores_again_without_those_that_it_uses(tmp_path: Path) -> None:
    run, _ = made(tmp_path, toy_items(3))
    score(run, [Peak(), DoublePeak()])
    Peak.calls.clear()
    changed = DoublePeak()
    changed.version = 2
    assert score(run, [Peak(), changed]).rows == {"peak": 0, "double": 3}
    assert Peak.calls == []


def test_a_changed_metric_makes_those_that_use_it_score_again(tmp_path: Path) -> None:
    old, new = Peak(), Peak()
    new.version = 2
    double = DoublePeak()
    assert fingerprint(double, {"peak": old}) != fingerprint(double, {"peak": new})


class Heavy(Peak):
    """A metric whose weights are not on this machine."""

    name = "heavy"

    def load(self) -> None:
        raise WeightsMissing("heavy is not on this machine; run: voxmill models pull heavy")


def test_a_metric_without_its_weights_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    run, _ = made(tmp_path, toy_items(2))
    done = score(run, [Heavy(), Peak()])
    assert done.rows == {"peak": 2}
    assert "voxmill models pull heavy" in done.not_measured["heavy"]


class Paired(Peak):
    """Scores all seeds of an item in one call."""

    name = "paired"

    def group(self, take: Take) -> str | None:
        return take.item.id

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        return [{"peak": float(len(takes))} for _ in takes]


def test_takes_of_one_group_are_scored_together(tmp_path: Path) -> None:
    run, _ = made(tmp_path, toy_items(3), seeds=(0, 1))
    metric = Paired()
    score(run, [metric])
    assert {row["peak"] for row in table_of(run, metric, {}).rows()} == {2.0}


def test_two_processes_do_not_write_to_one_run(tmp_path: Path) -> None:
    run, system = made(tmp_path, toy_items(1))
    with run.locked(), pytest.raises(EvaluationError, match="another process"):
        generate(Run(run.root), system)


def test_a_forecast_scales_a_trial_and_leaves_no_file(tmp_path: Path) -> None:
    system = Hum()
    found = forecast(system, [Heavy(), Peak(), DoublePeak()], toy_items(100), [0, 1])
    assert (found.items, found.takes, len(system.asked)) == (100, 200, 6)
    assert found.audio_h == pytest.approx(200 * 0.5 / 3600)
    assert found.not_measured.keys() == {"heavy"}
    assert found.score_h.keys() == {"peak", "double"}
    assert found.hours > 0
    assert list(tmp_path.iterdir()) == []


class Costly(Peak):
    """A metric that asks a paid service."""

    name = "costly"

    def dollars(self, items: Sequence[Item], seconds: float, seeds: int) -> float:
        return len(items) * seeds * seconds

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        raise AssertionError("asked in a trial")


def test_a_forecast_asks_what_a_paid_metric_costs_and_does_not_run_it() -> None:
    found = forecast(Hum(), [Costly()], toy_items(10), [0, 1])
    assert found.dollars == {"costly": 10 * 2 * 0.5}


class Louder(Peak):
    """A metric with an option."""

    name = "louder"

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def settings(self) -> dict[str, Any]:
        return {"factor": self.factor}

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        return [{"peak": self.factor * float(row["peak"])} for row in super().score(takes) if row]


def test_a_run_remembers_the_options_of_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "louder", "test_runs:Louder")
    run, _ = made(tmp_path, toy_items(2))
    assert rescore(run, ["louder"], metric_options={"louder": {"factor": 2.0}}).scored.rows == {"louder": 2}
    run, _ = made(tmp_path, toy_items(3))
    assert rescore(run, ["louder"]).scored.rows == {"louder": 1}
    assert max(read_figures(run).series["louder.peak"].figures.values()) == pytest.approx(0.6, abs=0.01)
    with pytest.raises(EvaluationError, match="louder has no option 'loud'; known: factor"):
        rescore(run, ["louder"], metric_options={"louder": {"loud": 1}})


def test_runs_that_were_measured_differently_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "louder", "test_runs:Louder")
    one, _ = made(tmp_path / "one", toy_items(2))
    other, _ = made(tmp_path / "other", toy_items(2))
    rescore(one, ["louder"], metric_options={"louder": {"factor": 2.0}})
    with pytest.raises(EvaluationError, match="measured with different options"):
        compare([Run(one.root), Run(other.root)])


class Recovering(Hum):
    """Works again."""

    def _answer(self, ask: Ask) -> Speech | Exception:
        return super()._answer(Ask(Item("fine", "en"), ask.seed)) if "late" in ask.item.text else super()._answer(ask)


def test_an_error_or_a_time_out_is_asked_again_if_that_is_wanted(tmp_path: Path) -> None:
    items = [Item(text, "en") for text in ("fine", "late", "mute")]
    run, _ = made(tmp_path, items)
    system = Recovering()
    assert generate(run, system) == {"ok": 1, "timeout": 1, "silent": 1}
    assert generate(run, system, again=("error", "timeout")) == {"ok": 2, "silent": 1}
    assert [text for text, _ in system.asked] == ["late"]
    assert failures(run) == {"silent: the audio is silent": [items[2].id]}


def test_a_take_whose_audio_is_gone_is_made_again(tmp_path: Path) -> None:
    run, _ = made(tmp_path, toy_items(3))
    before = run.generated.by_key()
    (run.root / next(iter(before.values()))["audio"]).unlink()
    with pytest.raises(EvaluationError, match="missing or damaged"):
        for take in all_takes(run):
            take.audio()
    run, system = made(tmp_path, toy_items(3))
    assert len(system.asked) == 1
    assert run.generated.by_key() == before


class Picky(Peak):
    """Cannot read the clip of one item."""

    name = "picky"

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        if any(take.item.name == "s1" for take in takes):
            raise EvaluationError("clip.wav: the audio cannot be read")
        return super().score(takes)


def test_a_clip_that_cannot_be_read_keeps_no_other_take_from_being_scored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, _ = made(tmp_path, toy_items(4))
    metric = Picky()
    score(run, [metric])
    rows = {run.by_id[key[0]].name: row["peak"] for key, row in table_of(run, metric, {}).by_key().items()}
    assert sorted(rows) == ["s0", "s2", "s3"] and None not in rows.values()
    assert "picky: s1 is not measured" in caplog.text


def test_a_clip_that_is_not_audio_stops_a_run_before_it_speaks(tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_text("not audio")
    with pytest.raises(EvaluationError, match=r"item one: .*bad\.wav is not audio"):
        evaluate("human", [Item("Hello.", "en", name="one", human=tmp_path / "bad.wav")], tmp_path / "run", metrics=[])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("system", "options", "words"),
    [
        ("human", {"recipe": "both"}, "human has no option 'recipe'; known: none"),
        ("model/latest", {}, "no checkpoint at model/latest"),
        ("humen:", {}, "did you mean human"),
    ],
)
def test_a_system_that_cannot_be_opened_is_one_clear_line(system: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(EvaluationError, match=words):
        open_system(system, options)
