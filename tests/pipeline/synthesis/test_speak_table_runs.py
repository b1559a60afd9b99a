"""`speak --table`: what a folder is bound to, kills, forecasts, and the command."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.processes import PATIENCE_S
from speaking import (
    QUICK,
    REPOSITORY,
    Speak,
    clips,
    files_of,
    loaded_once,
    rows_of,
    speak,
    write_csv,
    write_rows,
)
from typer.testing import CliRunner

from pipeline.runs.errors import PrepareError
from pipeline.synthesis.table.forecast import forecast_lines, forecast_table
from pipeline.synthesis.table.settings import load_speak_settings
from pipeline.synthesis.table.speak_table import speak_table
from voxcpm.provenance.files import read_marks

__all__ = ["clips", "loaded_once", "speak"]


def test_a_finished_folder_is_left_alone_and_refuses_other_inputs(speak: Speak, golden: Path, tmp_path: Path) -> None:
    table, out = write_csv(tmp_path / "t.csv", "text", "Hi", "Ho"), tmp_path / "out"
    speak(table, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name not in (".lock", "out")}
    assert speak(table, out, "generate.batch=3").run_rows == 0, "what changes no audio may change"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for overrides, message in (
        (("seed=1",), r"seed 0 \(now 1\)"),
        (("format=wav",), "format flac"),
        (("unit=9",), "unit 2"),
    ):
        with pytest.raises(PrepareError, match=message):
            speak(table, out, *overrides)
    with pytest.raises(PrepareError, match="other descriptions"):
        speak(table, out, descriptions=write_csv(tmp_path / "w.txt", "calm"))
    write_csv(table, "text", "Hi", "He")
    with pytest.raises(PrepareError, match=r"another table \(t.csv, 2 rows\)"):
        speak(table, out)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    with pytest.raises(PrepareError, match="was not made by speak --table"):
        speak(table, tmp_path / "other")
    with pytest.raises(PrepareError, match="is a file"):
        speak(table, table)


def test_another_model_is_refused(speak: Speak, golden: Path, tmp_path: Path) -> None:
    table, out = write_csv(tmp_path / "t.csv", "text", "Hi"), tmp_path / "out"
    speak(table, out)
    other = tmp_path / "model"
    other.mkdir()
    for path in (golden / "checkpoint").iterdir():
        (other / path.name).symlink_to(path)
    config = (other / "config.json").read_text(encoding="utf-8")
    (other / "config.json").unlink()
    (other / "config.json").write_text(config + "\n", encoding="utf-8")
    with pytest.raises(PrepareError, match="another model"):
        speak_table(table, other, out, settings=load_speak_settings(None, QUICK))


def test_a_model_that_cannot_be_loaded_stops_the_run_in_one_line(golden: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for path in (golden / "checkpoint").iterdir():
        if path.name != "model.safetensors":
            (tmp_path / "model" / path.name).symlink_to(path)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"nothing")
    table = write_csv(tmp_path / "t.csv", "text", "Hi")
    with pytest.raises(PrepareError, match="the model cannot be used") as raised:
        speak_table(table, tmp_path / "model", tmp_path / "out", settings=load_speak_settings(None, QUICK))
    assert "\n" not in str(raised.value)


def test_a_damaged_part_is_named(speak: Speak, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, out = write_csv(tmp_path / "t.csv", "text", "Hi", "Ho", "Ha"), tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.synthesis.table.speak_table.merge_parts", lambda root, job: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            speak(table, out)
    part = out / "table" / "part-0000001.parquet"
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(PrepareError, match=r"part-0000001\.parquet is missing or damaged: remove it"):
        speak(table, out)
    part.unlink()
    assert speak(table, out).spoken == 3 and not (out / "table").exists()


@pytest.mark.kill
def test_a_run_that_is_killed_at_any_write_ends_as_an_unbroken_one(
    golden: Path, clips: Path, tmp_path: Path, dice: random.Random
) -> None:
    rows = [{"id": f"r{n}", "text": ("Hi", " ", "Ho")[n % 3], "reference": None if n else "ref.wav"} for n in range(6)]
    table = write_rows(clips, ".jsonl", rows)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    # Some runs have fewer writes than that left, and end; the last one is not killed.
    kills = [dice.randint(1, 6), *(dice.randint(4, 16) for _ in range(4)), 0]
    words = [
        str(golden / "checkpoint"),
        str(table),
        json.dumps(QUICK),
        json.dumps({str(whole): [0], str(broken): kills}),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "fakes.speaking_table", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ends = json.loads(done.stdout.splitlines()[-1])
    assert ends[str(whole)] == [0]
    assert ends[str(broken)][0] == -9 and ends[str(broken)][-1] == 0 and set(ends[str(broken)]) == {0, -9}
    assert files_of(broken) == files_of(whole) and len(files_of(whole)) == 2 + 4


def test_the_forecast_counts_and_writes_nothing(speak: Speak, golden: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", "text,id", "Hi,a", " ,b", "Ho,a", "Hello there,d", "Ho,e")
    settings = load_speak_settings(None, QUICK)
    found = forecast_table(table, golden / "checkpoint", tmp_path / "out", settings=settings, trial=2)
    assert (found.rows, found.already, found.bad) == (5, 0, {"empty_text": 1, "repeated_id": 1})
    assert found.trial_rows == 2 and (found.generate_s or 0) > 0 and found.unended and found.speech_s > 0
    assert "trial: 2 rows" in "\n".join(forecast_lines(found)) and not (tmp_path / "out").exists()
    speak(table, tmp_path / "out")
    after = forecast_table(table, golden / "checkpoint", tmp_path / "out", settings=settings, trial=0)
    assert (after.already, after.speech_s, after.generate_s) == (5, 0.0, None)
    assert "give --trial" in forecast_lines(after)[-1]


def test_workers_are_as_many_as_there_is_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))

    def engine(*overrides: str) -> tuple[dict[str, int], dict[str, float]]:
        fitted = load_speak_settings(None, overrides).fitted(tmp_path).engine
        return fitted.actors, fitted.gpus

    home = "pipeline.synthesis.table.settings."
    monkeypatch.setattr(home + "count_gpus", lambda: 0)
    monkeypatch.setattr(home + "os.cpu_count", lambda: 64)
    monkeypatch.setattr(home + "physical_memory", lambda: 10_000)
    assert engine() == ({"generate_speech": 3}, {})
    assert engine("engine.executor=inline") == engine("engine.address=auto") == ({}, {})
    assert engine("engine.actors.generate_speech=9") == ({"generate_speech": 9}, {})
    monkeypatch.setattr(home + "physical_memory", lambda: 1_000_000)
    assert engine() == ({}, {})
    monkeypatch.setattr(home + "count_gpus", lambda: 8)
    assert engine() == ({}, {"generate_speech": 1.0})
    assert engine("generate.device=cpu") == ({}, {})


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(golden: Path) -> Callable[..., Any]:
    def run(*words: str) -> Any:
        from voxmill import cli

        command = ["speak", "--model", str(golden / "checkpoint"), *words, "--json"]
        return json.loads(CliRunner().invoke(cli.app, command, catch_exceptions=False).stdout)

    return run


def test_the_command_speaks_a_table_and_forecasts_it(command: Callable[..., Any], tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", "text", "Hi", "Ho", " ")
    given = ["--table", str(table), "--out", str(tmp_path / "out"), "--executor", "inline", "--steps", "1"]
    given += ["--seed", "3", "--retry", "1", "--device", "cpu", "--set", "format=wav", "--no-mark"]
    forecast = command(*given, "--dry-run", "--trial", "1")
    assert (forecast["rows"], forecast["bad"], forecast["trial_rows"]) == (3, {"empty_text": 1}, 1)
    made = command(*given)
    assert (made["spoken"], made["failed"], made["run_rows"]) == (2, {"empty_text": 1}, 3)
    options = json.loads((tmp_path / "out" / "speak.json").read_text(encoding="utf-8"))["options"]
    assert (options["seed"], options["retry"], options["steps"], options["format"]) == (3, 1, 1, "wav")
    spoken = [row["audio"] for row in rows_of(tmp_path / "out") if row["audio"]]
    assert options["mark"] is False and not any(read_marks(tmp_path / "out" / path) for path in spoken)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Hello"], "TEXT does not combine with --table: the texts are in the table"),
        (["--stream"], "--stream does not combine with --table"),
        (["--long"], "--long does not combine with --table"),
        (["--compile"], "--compile does not combine with --table"),
        (["--max-seconds", "3"], "--max-seconds does not combine with --table"),
        (["--reference", "a.wav"], "--reference does not combine with --table: use a column reference, or --voices"),
        (["--describe", "calm"], "--describe does not combine with --table: use a column description"),
        (["--cfg", "99"], "cfg_value 99 is outside"),
        ([], "say where to write the audio and the table: -o FOLDER"),
    ],
)
def test_what_does_not_combine_with_a_table_is_one_line(
    command: Callable[..., Any], tmp_path: Path, words: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        command("--table", str(write_csv(tmp_path / "t.csv", "text", "Hi")), *words)


@pytest.mark.parametrize("words", [["--voices", "a"], ["--dry-run"], ["--set", "unit=3"], ["--trial", "3"]])
def test_options_of_tables_need_one(command: Callable[..., Any], words: list[str]) -> None:
    with pytest.raises(ValueError, match=f"{words[0]} needs --table"):
        command("Hello", *words)


def test_the_function_is_exported() -> None:
    import voxmill

    assert voxmill.speak_table is speak_table
