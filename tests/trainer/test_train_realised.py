"""What a run was really trained on: kept by phase, written beside the losses, told beside what was asked; older states resume."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.logs import logged
from test_train_corpora import decouple
from train_runs import Runs, losses

from trainer.checkpoint.restore import latest, saved_state
from trainer.checkpoint.state import RunState
from trainer.config import TrainConfig
from trainer.data.corpora import Corpora
from trainer.data.sample_counts import SampleCounts
from trainer.dryrun.plan import plan
from trainer.run import train
from trainer.runtime.metrics import read_metrics
from trainer.sample_kinds import LAYOUTS

BASIC = {layout: float(layout == "basic") for layout in LAYOUTS}


def two_phases(runs: Runs, output: Path, **changes: Any) -> TrainConfig:
    shared = {"steps": 3, "max_positions": 160, "rows": 2}
    phases = {"plain": shared | {"layouts": BASIC}, "designed": shared | {"layouts": BASIC | {"design": 1.0}}}
    return runs.config(output).model_copy(
        update={
            "phases": TrainConfig.model_validate({"corpus": "c", "output": "o", "phases": phases}).phases,
            **changes,
        }
    )


def test_each_phase_is_counted_and_told_by_itself(runs: Runs, tmp_path: Path) -> None:
    said: list[str] = []
    result = logged(said.append, train, two_phases(runs, tmp_path / "out", log_every=2))
    saved = latest(tmp_path / "out")
    assert saved is not None
    state = saved_state(saved)
    assert set(state.phases) == {"plain", "designed"}
    plain, designed = state.phases["plain"], state.phases["designed"]
    assert set(plain.layouts) == {"basic"} and set(designed.layouts) == {"basic", "design"}
    assert plain.samples + designed.samples == state.realised.samples == sum(result.layouts.values())
    assert plain.seconds + designed.seconds == pytest.approx(state.realised.seconds)
    assert any(line.startswith("phase plain, by layout: basic ") and "(100.0%, asked 100.0%" in line for line in said)
    assert any(line.startswith("phase designed, by layout: basic ") and "asked 50.0%" in line for line in said)
    assert any(line.startswith("phase designed, by language: de ") for line in said)
    rows = {row["step"]: row for row in read_metrics(tmp_path / "out")}
    assert {step for step, row in rows.items() if "data/share_layout_basic" in row} == {1, 2, 4, 6}
    assert rows[2]["data/share_layout_basic"] == 1.0 and rows[6]["data/share_layout_design"] > 0
    assert rows[6]["data/share_language_de"] + rows[6]["data/share_language_en"] == pytest.approx(1.0)


@pytest.mark.parametrize("key", ["0123456789abcdef", "2:0123456789abcdef"])
def test_a_state_from_before_counts_by_phase_goes_on(runs: Runs, tmp_path: Path, key: str) -> None:
    """As the first version wrote it: no counts by phase, rows that were open, a data key without a version or of the second:
    such a run continues from the same number in today's order, and says so."""
    train(runs.config(tmp_path / "out", {"steps": 6}))
    path = tmp_path / "out" / "resume" / "step_0000006.pt"
    found = torch.load(path, weights_only=True)
    for name in ("phases", "reordered_at"):
        del found["state"][name]
    del found["state"]["realised"]["decoupled"]
    found["state"]["data_key"] = key
    before = sum(found["state"]["realised"]["layouts"].values())
    torch.save(found, path)
    said: list[str] = []
    result = logged(said.append, train, runs.config(tmp_path / "out", {"steps": 8}))
    assert result.steps == 8 and sorted(losses(tmp_path / "out")) == list(range(1, 9))
    assert any("begun by an earlier version" in line for line in said)
    saved = latest(tmp_path / "out")
    assert saved is not None
    state = saved_state(saved)
    assert state.realised.samples == before + state.phases["only"].samples and state.reordered_at == 6
    again: list[str] = []
    assert logged(again.append, train, runs.config(tmp_path / "out", {"steps": 9})).steps == 9
    assert not any("earlier version" in line for line in again)


def test_a_samples_phase_is_the_one_the_run_is_in() -> None:
    state = RunState(rows={"phase": "a"})
    assert state.phase is state.phases["a"] and state.phase == SampleCounts()


def test_the_plan_of_a_ramp_has_all_of_it(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its beginning alone would say that nothing is described."""
    phase = {"steps": 400, "layouts_from": BASIC, "layouts": BASIC | {"design": 1.0}, "max_repeats": 100}
    monkeypatch.setattr("trainer.dryrun.plan._LAID_OUT", 500)
    (quick,) = plan(runs.config(tmp_path / "out", phase)).phases
    monkeypatch.setattr("trainer.dryrun.plan._LAID_OUT", 10**9)
    (whole,) = plan(runs.config(tmp_path / "out", phase)).phases
    assert not quick.exact and whole.exact
    for found in (quick, whole):
        assert found.layouts["design"] / found.samples == pytest.approx(found.asked["design"], abs=0.02)
        # Rising for half of the samples, some more as this tokenizer knows but letters.
        assert 0.28 < found.asked["design"] < 0.38
        assert found.rounds["design"] == pytest.approx(found.layouts["design"] / 8, rel=0.01)


def test_a_plan_for_long_clips_says_that_there_are_none(runs: Runs, tmp_path: Path) -> None:
    said = plan(runs.config(tmp_path / "out", {"steps": 1, "max_seconds": 180})).notes
    assert any("max_seconds is 180" in note and "refine_cuts.lengths=stage2" in note for note in said)
    said = plan(runs.config(tmp_path / "out", {"steps": 1, "max_seconds": 30})).notes
    assert not any("refine_cuts" in note for note in said)


def test_decoupled_samples_are_trained_on_and_told(runs: Runs, speech: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(speech, corpus)
    made = decouple(corpus)
    config = Runs(corpus, runs.start, runs.cache).config(
        tmp_path / "out", {"steps": 4, "layouts": BASIC | {"controllable": 1.0}, "decoupled": 1.0, "max_repeats": 100}
    )
    said: list[str] = []
    (planned,) = plan(config).phases
    logged(said.append, train, config)
    saved = latest(tmp_path / "out")
    assert saved is not None
    realised = saved_state(saved).phases["only"]
    assert realised.decoupled == realised.layouts["controllable"] == planned.decoupled > 0
    assert any(f"; {realised.decoupled} content-decoupled" in line for line in said)
    assert any("; 1 content-decoupled samples" in line for line in said)
    assert made in Corpora([corpus]).decoupled()
