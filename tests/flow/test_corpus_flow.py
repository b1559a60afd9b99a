"""The real steps on a corpus: prepare, describe, report, export. Stages without models, in this process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fakes.chaos_run import CheapConfig
from fakes.recordings import noise, write
from flow_helpers import flow, run_here

from catalogs.corpus.marks import MarkFile
from catalogs.corpus.thresholds import change_thresholds
from catalogs.query.views import query
from voxmill.flow.settings import FlowSettings

STEPS = {
    "prepare": {"set": {"describe": "none"}},
    "describe": {"corpus": "prepare"},
    "report": {"corpus": "describe"},
    "export": {"corpus": "prepare", "to": "hf"},
}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FlowSettings:
    for number in range(2):
        write(tmp_path / "in" / f"{number}.wav", noise(3.0, 16_000, seed=number), 16_000)
    cheap = CheapConfig(engine={"executor": "inline"}, thresholds={"require_text": False}, describe="none")
    monkeypatch.setattr("pipeline.config.load_config", lambda *settings: cheap)
    return flow(tmp_path / "flow", STEPS, sources=(str(tmp_path / "in"),))


def test_recordings_to_an_export(settings: FlowSettings, tmp_path: Path) -> None:
    folder = tmp_path / "flow"
    assert run_here(settings).done == list(STEPS)
    assert query(folder / "prepare", "select count(*) from descriptions")[1] == [(2,)]
    assert (folder / "report" / "report.html").is_file()
    assert json.loads((folder / "export" / "export.json").read_text())["splits"]["train"]["clips"] == 2
    assert run_here(settings).done == []

    # A recording that is added: prepare continues, the export is made again beside the old one.
    write(tmp_path / "in" / "2.wav", noise(3.0, 16_000, seed=2), 16_000)
    done = run_here(settings)
    assert done.done == list(STEPS) and set(done.moved) == {"report", "export"}
    assert query(folder / "prepare", "select count(*) from segments where kept")[1] == [(3,)]

    # A date that changed, and nothing else: only prepare looks.
    (tmp_path / "in" / "0.wav").touch()
    assert run_here(settings).done == ["prepare"]


def test_thresholds_and_marks_of_people_reach_later_steps(settings: FlowSettings, tmp_path: Path) -> None:
    corpus = tmp_path / "flow" / "prepare"
    run_here(settings)
    change_thresholds(corpus, ["max_duration_s=250"], None, False)
    assert run_here(settings).done == ["describe", "report", "export"]
    (segment,) = query(corpus, "select segment_id from segments order by 1 limit 1")[1][0]
    MarkFile(corpus, "ann").add(segment, verdict="drop")
    done = run_here(settings)
    assert done.done == ["describe", "report", "export"]
    assert json.loads((tmp_path / "flow" / "export" / "export.json").read_text())["splits"]["train"]["clips"] == 1


def test_a_lost_corpus_is_made_again(settings: FlowSettings, tmp_path: Path) -> None:
    run_here(settings)
    before = query(tmp_path / "flow" / "prepare", "select segment_id from segments order by 1")[1]
    shutil.rmtree(tmp_path / "flow" / "prepare")
    done = run_here(settings)
    # The same segments and descriptions: what was made of them is still right.
    assert done.done == ["prepare", "describe"]
    assert query(tmp_path / "flow" / "prepare", "select segment_id from segments order by 1")[1] == before
