"""The table of voices: whose voice was asked for, whose is heard."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_runs import Hum, toy_settings

from evaluation.items import Item
from evaluation.metrics import METRICS, load_metrics
from evaluation.report.page import write_report
from evaluation.results.confusions import MOST, confusions
from evaluation.runs.folder import Run, create_run
from evaluation.runs.generate import generate
from evaluation.runs.score import table_of

HEARD = {"ann": ["ann", "ann", "ann", "bob"], "bob": ["bob", "ann", "cleo", "bob"], "cleo": ["cleo"]}


def spoken(folder: Path, heard: dict[str, list[str]]) -> Run:
    """Return a run whose takes are most like given voices, without an encoder."""
    items = [
        Item(f"{speaker} says {number}", "en", list_name="mine", groups={"speaker": speaker})
        for speaker, voices in heard.items()
        for number in range(len(voices))
    ]
    run = create_run(folder / "run", toy_settings(Hum()), items, [0])
    generate(run, Hum())
    metrics = {metric.name: metric for metric in load_metrics(METRICS)}
    rows = [
        {"item_id": item.id, "seed": 0, "own": 0.8, "others": 0.5, "margin": 0.3, "other_speakers": 2,
         "nearest": int(voice == item.speaker), "nearest_speaker": voice}
        for item, voice in zip(items, [voice for voices in heard.values() for voice in voices], strict=True)
    ]  # fmt: skip
    table_of(run, metrics["voice_margin"], metrics).add(rows)
    return run


def test_shares_of_each_voice(tmp_path: Path) -> None:
    run = spoken(tmp_path, HEARD)
    (table,) = confusions(run, "toy", {metric.name: metric for metric in load_metrics(METRICS)})
    assert table.voices == ("ann", "bob", "cleo") and table.left_out == 0
    assert {row.name: row.shares for row in table.rows} == {
        "ann": (0.75, 0.25, 0.0, 0.0),
        "bob": (0.25, 0.5, 0.25, 0.0),
        "cleo": (0.0, 0.0, 1.0, 0.0),
    }
    assert all(row.shares[row.own] > 0 and sum(row.shares) == pytest.approx(1) for row in table.rows)
    text = write_report([run]).read_text(encoding="utf-8")
    assert "Which voice is heard" in text and "75 %" in text


def test_many_voices_and_one(tmp_path: Path) -> None:
    many = {f"v{number:02d}": ["v00"] * (2 if number < MOST else 1) for number in range(MOST + 4)}
    metrics = {metric.name: metric for metric in load_metrics(METRICS)}
    (table,) = confusions(spoken(tmp_path / "many", many), "toy", metrics)
    assert len(table.voices) == MOST and table.left_out == 4
    assert confusions(spoken(tmp_path / "one", {"ann": ["ann"]}), "toy", metrics) == []
    assert confusions(spoken(tmp_path / "none", HEARD), "toy", {}) == []
