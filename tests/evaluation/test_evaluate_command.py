"""`voxmill evaluate`: what the command line makes of its options, and a whole run on recordings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from listening_panel import answer_sheet
from typer.testing import CliRunner

from evaluation.lists import LISTS
from evaluation.metrics import METRICS, load_metrics
from evaluation.metrics.base import Metric
from evaluation.systems import SYSTEMS
from voxmill.cli import app
from voxmill.commands.evaluate import split_lists

CLI = CliRunner()


@pytest.mark.parametrize("example", [kind.example for kind in LISTS.values()])
def test_the_example_of_each_list_is_one_list_with_its_options(example: str) -> None:
    assert split_lists(example) == [example]
    assert split_lists(f"{example},panel") == [example, "panel"]


def test_the_metrics_are_listed() -> None:
    result = CLI.invoke(app, ["evaluate", "metrics", "--json"])
    assert result.exit_code == 0, result.output
    assert [row["name"] for row in json.loads(result.stdout)] == list(METRICS)


def test_each_metric_has_all_that_a_metric_has() -> None:
    """Metrics are loaded by name, so that no type checker compares them with the protocol."""
    members = [name for name in vars(Metric) if not name.startswith("_")]
    assert "packages" in members
    assert not [
        (metric.name, name) for metric in load_metrics(METRICS) for name in members if not hasattr(metric, name)
    ]


@pytest.fixture
def own_list(tmp_path: Path) -> Path:
    rows = []
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", np.sin(np.arange(8000) * (0.05 + 0.01 * number)) * 0.3, 16_000)
        rows.append(
            {"id": f"i{number}", "text": f"Line {number}.", "language_id": "en", "human_audio": f"{number}.wav"}
        )
    rows.append({"id": "gone", "text": "Nobody read this.", "language_id": "en"})
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_run_says_what_failed_and_prints_json_alone(own_list: Path, tmp_path: Path) -> None:
    words = ["evaluate", "run", "human", "--on", str(own_list), "--on", f"{own_list},limit=1", "--metrics", "none"]
    done = CLI.invoke(app, [*words, "-o", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert "4 takes: 3 ok, 1 error" in done.output
    assert "failed: 1 take, such as gone: error: the list has no recording of this text" in done.output
    done = CLI.invoke(app, [*words, "-o", str(tmp_path / "run"), "--json"])
    assert json.loads(done.stdout)["statuses"] == {"ok": 3, "error": 1}


def test_two_runs_are_compared_and_held_against_each_other(own_list: Path, tmp_path: Path) -> None:
    for system, name in (("human", "a"), ("resample:8000", "b")):
        words = ["evaluate", "run", system, "--on", str(own_list), "--metrics", "none", "-o", str(tmp_path / name)]
        assert CLI.invoke(app, words).exit_code == 0
    done = CLI.invoke(app, ["evaluate", "compare", str(tmp_path / "a"), str(tmp_path / "b")])
    assert done.exit_code == 0 and "4 items in common" in done.output
    done = CLI.invoke(app, ["evaluate", "gate", str(tmp_path / "b"), "--baseline", str(tmp_path / "a")])
    assert done.exit_code == 3 and "cannot be told" in done.output
    done = CLI.invoke(app, ["evaluate", "report", str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path)])
    assert done.exit_code == 0 and (tmp_path / "report.html").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--metrics", "none,speed"], "none stands alone"),
        (["--metrics", "sped"], "no metric 'sped'; did you mean speed?"),
        (["--set", "cfg"], "--set cfg: write NAME=VALUE"),
        (["--metric-set", "speed=1"], "write METRIC.OPTION=VALUE"),
        (["--metric-set", "voice_ge2e.foo=1"], "voice_ge2e has no option 'foo'"),
    ],
)
def test_wrong_options_are_told_before_anything_is_spoken(
    own_list: Path, tmp_path: Path, words: list[str], told: str
) -> None:
    done = CLI.invoke(app, ["evaluate", "run", "human", "--on", str(own_list), "-o", str(tmp_path / "run"), *words])
    assert done.exit_code != 0
    assert told in str(done.exception)
    assert not (tmp_path / "run").exists()


def test_a_listening_test_is_made_and_read_as_json(own_list: Path, tmp_path: Path) -> None:
    runs = []
    for system, name in (("human", "a"), ("resample:8000", "b")):
        runs.append(str(tmp_path / name))
        words = ["evaluate", "run", system, "--on", str(own_list), "--metrics", "none", "-o", runs[-1], "--name", name]
        assert CLI.invoke(app, words).exit_code == 0
    test = tmp_path / "test"
    done = CLI.invoke(app, ["evaluate", "listen", "make", *runs, "-o", str(test), "--set", "items=2"])
    assert done.exit_code == 0, done.output
    assert "left out: 1 item" in done.output
    key = json.loads((test / "key" / "KEEP-PRIVATE-key.json").read_text(encoding="utf-8"))
    sheets = tmp_path / "answers"
    sheets.mkdir()
    for listener in range(1, 4):
        (sheets / f"{listener}.json").write_text(json.dumps(answers(key, listener)))
    (sheets / "junk.json").write_text("{")
    done = CLI.invoke(app, ["evaluate", "listen", "read", str(test), str(sheets), "--keep", "variance", "--json"])
    found = json.loads(done.stdout)
    assert (found["counted"], len(found["faults"])) == (3, 1)
    assert found["differences"]["naturalness"][0]["systems"] == ["a", "b"]


def answers(key: dict[str, Any], listener: int) -> dict[str, Any]:
    """Return the export of a listener who likes system `a`."""

    def score(trial: dict[str, Any]) -> int:
        return 5 if any(key["clips"][clip].get("system") == "a" for clip in trial["clips"]) else 2

    return answer_sheet(key, listener, lambda trial, scale, rng: score(trial))


def test_every_kind_of_system_is_named_with_its_options() -> None:
    done = CLI.invoke(app, ["evaluate", "systems", "--json"])
    found = {kind["usage"]: {option[0] for option in kind["options"]} for kind in json.loads(done.stdout)}
    assert {usage.partition(":")[0] for usage in found} == set(SYSTEMS)
    assert {"recipe", "cfg", "steps"} <= found["checkpoint:DIR"]
