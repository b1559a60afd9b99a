"""`validation.best`: the best checkpoint is found, kept and linked; a run ends early; a judge that fails costs nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.logs import logged
from rank_runs import RankProcesses
from train_runs import Runs, losses

from evaluation.items import read_items
from trainer.config import TrainConfig, TrainError
from trainer.dryrun.plan import plan
from trainer.monitor.panel import Panel, environment_of
from trainer.result import Progress
from trainer.run import train
from trainer.runtime.metrics import read_metrics


def settings(costs: dict[int, float], **best: Any) -> dict[str, Any]:
    weights = {str(step): cost for step, cost in costs.items()}
    chosen = {"every": 2, "segments": 4, "judge": "fakes.panel_judge:judge", "weights": weights} | best
    return {"every": 100, "share": 0.3, "segments": 1, "speak": 0, "best": chosen}


def run(runs: Runs, output: Path, validation: dict[str, Any], **more: Any) -> TrainConfig:
    return runs.config(output, {"steps": 6}, validation=validation, **({"save_every": 3, "keep": 1} | more))


def judged(output: Path) -> dict[int, float]:
    return {int(row["step"]): row["panel/cost"] for row in read_metrics(output) if "panel/cost" in row}


@pytest.fixture(scope="module")
def finished(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], str | None]:
    """A run of which step 2 of 6 is the best: its output, what it said, and the result's `best`."""
    torch.set_num_threads(1)
    said: list[str] = []
    output = tmp_path_factory.mktemp("panel") / "out"
    result = logged(said.append, train, run(runs, output, settings({2: 0.2, 4: 0.5, 6: 0.4})))
    assert result.steps == 6 and not result.ended_early
    return output, said, result.best


def test_the_best_is_linked_and_kept_beyond_keep(finished: tuple[Path, list[str], str | None]) -> None:
    output, said, best = finished
    assert (output / "best").readlink() == Path("checkpoints/step_0000002") and best == str(output / "best")
    assert sorted(path.name for path in (output / "checkpoints").iterdir()) == ["step_0000002", "step_0000006"]
    # Only the newest can be resumed from.
    assert [path.name for path in (output / "resume").iterdir()] == ["step_0000006.pt"]
    assert judged(output) == {2: 0.2, 4: 0.5, 6: 0.4}
    assert any("step 6: panel cost 0.4000; best is step 2" in line for line in said), said


def test_the_held_out_items_are_a_list_with_clips(finished: tuple[Path, list[str], str | None]) -> None:
    items = read_items(finished[0] / "panel" / "held" / "items.jsonl")
    assert 1 <= len(items) <= 4 and {item.language for item in items} <= {"en", "de"}
    for item in items:
        assert item.human is not None and item.reference is not None and item.reference_text and item.text
        assert item.reference != item.human


def test_panels_change_nothing_in_the_training(
    runs: Runs, finished: tuple[Path, list[str], str | None], tmp_path: Path
) -> None:
    plain = {"every": 100, "share": 0.3, "segments": 1, "speak": 0}
    train(run(runs, tmp_path / "plain", plain))
    assert losses(tmp_path / "plain") == losses(finished[0])


def test_a_run_ends_early_and_stays_ended(runs: Runs, tmp_path: Path) -> None:
    said: list[str] = []
    config = run(runs, tmp_path / "out", settings({2: 0.2, 4: 0.5, 6: 0.1}, patience=1))
    result = logged(said.append, train, config)
    assert result.steps == 4 and result.ended_early and not result.stopped_early
    assert any("the run ends early: step 2 is the best" in line for line in said), said
    again = train(config)
    assert again.steps == 4 and again.ended_early
    on = train(run(runs, tmp_path / "out", settings({2: 0.2, 4: 0.5, 6: 0.1}, patience=None)))
    assert on.steps == 6 and not on.ended_early and (tmp_path / "out" / "best").readlink().name == "step_0000006"


def test_a_judge_that_fails_is_told_and_the_training_continues(runs: Runs, tmp_path: Path) -> None:
    said: list[str] = []
    result = logged(said.append, train, run(runs, tmp_path / "out", settings({2: 0.2, 4: 9, 6: 0.3})))
    assert result.steps == 6 and judged(tmp_path / "out") == {2: 0.2, 6: 0.3}
    (told,) = [line for line in said if "panel failed" in line]
    assert told.startswith("step 4: panel failed (ValueError: cannot judge") and "\n" not in told


def test_beside_the_training_every_panel_is_waited_for_at_the_end(runs: Runs, tmp_path: Path) -> None:
    train(run(runs, tmp_path / "out", settings({2: 0.2, 4: 0.5, 6: 0.4}, beside=True)))
    assert judged(tmp_path / "out") == {2: 0.2, 4: 0.5, 6: 0.4}
    assert (tmp_path / "out" / "best").readlink().name == "step_0000002"


def test_what_a_killed_run_has_not_judged_is_judged_when_it_resumes(runs: Runs, tmp_path: Path) -> None:
    output = tmp_path / "out"
    costs = {2: 0.2, 4: 0.5, 6: 0.4}
    train(run(runs, output, settings(costs), steps=4, keep=2))
    # As if killed after the save of step 4; and a panel of a step that the run does not have any more.
    shutil.rmtree(output / "panel" / "step_0000004")
    shutil.copytree(output / "panel" / "step_0000002", output / "panel" / "step_0000005")
    said: list[str] = []
    logged(said.append, train, run(runs, output, settings(costs), keep=2))
    told = [line.split(":")[0] for line in said if ": panel cost" in line]
    assert told == ["step 4", "step 6"] and not (output / "panel" / "step_0000005").exists()


def test_sharded_ranks_export_for_the_panel_and_end_together(runs: Runs, tmp_path: Path) -> None:
    config = runs.config(
        tmp_path / "out",
        {"steps": 6, "rows": 1, "accumulate": 2},
        validation=settings({2: 0.2, 4: 0.5, 6: 0.1}, patience=1),
        save_every=100,
        keep=1,
        parallel="fsdp",
    )
    ranks = RankProcesses(config, tmp_path)
    assert ranks.finish() == [0, 0], ranks.said()
    assert "step 4: the run ends early: step 2 is the best" in ranks.said()
    assert (tmp_path / "out" / "best").readlink().name == "step_0000002"
    exported = sorted(path.name for path in (tmp_path / "out" / "checkpoints").iterdir())
    assert exported == ["step_0000002", "step_0000004"] and judged(tmp_path / "out") == {2: 0.2, 4: 0.5}


def test_a_run_that_is_asked_to_stop_ends_the_judge(runs: Runs, tmp_path: Path, speech: Path) -> None:
    config = run(runs, tmp_path / "out", settings({2: 0.2}))
    panel = Panel(config, "cpu", lambda step, values: None, asked_to_stop=lambda: True)
    panel.judge(2)
    assert panel.protected() == {"step_0000002"}
    process = panel._process
    assert process is not None
    panel.close()
    assert (
        process.returncode is not None and not (tmp_path / "out" / "panel" / "step_0000002" / "verdict.json").exists()
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"judge": "fakes.nobody:judge"}, r"validation.best.judge=fakes.nobody:judge: No module named"),
        ({"judge": "fakes.panel_judge:nothing"}, r"has no attribute 'nothing'"),
        ({"weights": {"2": 8.0}}, r"validation.best: weights: 8 is too much; take less"),
    ],
)
def test_a_judge_that_cannot_work_is_told_before_the_run(
    runs: Runs, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    config = run(runs, tmp_path / "out", settings({2: 0.2}, **changes))
    for work in (plan, train):
        with pytest.raises(TrainError, match=told):
            work(config)
    assert not (tmp_path / "out").exists()


def test_best_needs_held_out_segments(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"set validation\.every"):
        run(runs, tmp_path / "out", settings({}) | {"every": None})


def test_the_best_checkpoint_counts_in_the_plan_of_the_disk(runs: Runs, tmp_path: Path) -> None:
    with_best = plan(run(runs, tmp_path / "out", settings({})))
    without = plan(run(runs, tmp_path / "out", settings({}) | {"best": None}))
    assert with_best.disk_bytes - without.disk_bytes == pytest.approx(without.checkpoint_bytes)


@pytest.mark.parametrize(
    ("device", "seen", "wanted"),
    [("cpu", "0,1", ""), ("cuda:1", "4,7", "7"), ("cuda:1", None, "1"), ("cuda", "4,7", "4,7")],
)
def test_a_judge_sees_only_its_device(device: str, seen: str | None, wanted: str) -> None:
    given = {"RANK": "0", "WORLD_SIZE": "2", "HOME": "/root"}
    if seen is not None:
        given["CUDA_VISIBLE_DEVICES"] = seen
    assert environment_of(device, given) == {"HOME": "/root", "CUDA_VISIBLE_DEVICES": wanted}


def test_many_passes_over_little_data_are_told(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.dryrun.plan._LAID_OUT", 500)
    planned = plan(runs.config(tmp_path / "out", {"steps": 1_400_000}))
    (line,) = [line for line in planned.lines() if line.startswith("warning:")]
    assert planned.phases[0].epochs > 200_000
    assert f"about {planned.phases[0].epochs:,.0f} passes over its 16 segments" in line
    assert "data.warn_epochs=200" in line and "set data.warn_epochs=null" in line
    quiet = runs.config(tmp_path / "out", {"steps": 1_400_000}, data={"warn_epochs": None})
    assert not [line for line in plan(quiet).lines() if line.startswith("warning:")]


def test_the_bound_is_exact_and_the_run_warns_too(runs: Runs, tmp_path: Path) -> None:
    epochs = plan(runs.config(tmp_path / "out", {"steps": 40})).phases[0].epochs
    for bound, warned in ((epochs * 1.01, False), (epochs * 0.99, True)):
        found = plan(runs.config(tmp_path / "out", {"steps": 40}, data={"warn_epochs": bound}))
        assert (found.phases[0].warning is not None) == warned
    said: list[str] = []

    def stop_soon(progress: Progress) -> None:
        if progress.step == 1:
            raise KeyboardInterrupt

    config = runs.config(tmp_path / "out", {"steps": 400_000})
    with pytest.raises(KeyboardInterrupt):
        logged(said.append, train, config, stop_soon)
    (line,) = [line for line in said if line.startswith("warning: phase only: about ")]
    passes = float(line.split("about ")[1].split(" passes")[0].replace(",", ""))
    assert 0.5 < passes / (epochs * 10_000) < 2, "estimated from the lengths, not laid out"
