"""`voxmill.prepare` and `voxmill.retry` do from Python what the commands of these names do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from fakes.chaos_run import CheapConfig
from fakes.engine_stages import TroubleConfig
from fakes.recordings import noise, write
from typer.testing import CliRunner

import pipeline.prepare
import voxmill
from catalogs.query.views import query
from pipeline.config import PrepareConfig
from voxmill.cli import app
from voxmill.progress import PrepareProgress
from voxmill.terminal import Terminal


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    for number in range(2):
        write(tmp_path / "in" / f"{number}.wav", noise(3.0, 16_000, seed=number), 16_000)
    (tmp_path / "fates").mkdir()
    return tmp_path / "in"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PrepareConfig:
    """Settings without models, which the commands get too, whatever they ask for. A recording may meet a fate."""
    trouble = TroubleConfig(fates=str(tmp_path / "fates"))
    cheap = CheapConfig(engine={"executor": "inline"}, thresholds={"require_text": False}, trouble=trouble)
    monkeypatch.setattr("pipeline.config.load_config", lambda *settings: cheap)
    monkeypatch.setattr("pipeline.retry.load_config", lambda *settings: cheap)
    return cheap


def told(text: str, corpus: Path) -> list[str]:
    """Lines for people without what differs from run to run: the corpus' name, and times."""
    text = text.replace(str(corpus), "CORPUS")
    changing = r"\d{8}T\d{6}|\d+(\.\d+)?( s\b|x)|(?<=[a-z] )\d+\.\d+"
    return [re.sub(changing, "N", line) for line in text.splitlines()]


def figures(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: summary[name] for name in ("sources", "sessions", "units", "segments", "kept", "tried_again")}


def test_the_functions_do_what_the_commands_do(
    recordings: Path, config: PrepareConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    shell, python = tmp_path / "shell", tmp_path / "python"
    fate = tmp_path / "fates" / "1.wav"
    fate.write_text("bug")
    command = ["prepare", str(recordings), "--out", str(shell), "--json"]
    first = CliRunner().invoke(app, command)
    caplog.clear()
    summary = voxmill.prepare([str(recordings)], python, config)
    assert figures(asdict(summary)) == figures(json.loads(first.stdout)) and summary.quarantined
    printed = [line for line in told(first.stderr, shell) if "sessions: " not in line]
    assert printed == told("\n".join(caplog.messages), python)
    fate.unlink()
    caplog.clear()
    again = CliRunner().invoke(app, ["retry", str(shell), "--json"])
    caplog.clear()
    tried = voxmill.retry(python)
    assert figures(asdict(tried)) == figures(json.loads(again.stdout)) and tried.tried_again == 1
    printed = [line for line in told(again.stderr, shell) if "session: " not in line]
    assert printed == told("\n".join(caplog.messages), python)
    assert any(line.startswith("described ") for line in caplog.messages), (
        "without scores there is nothing to say of it"
    )
    for corpus in (shell, python):
        assert (corpus / "catalog.duckdb").is_file()
        assert query(corpus, "select count(*) from segments where kept")[1] == [(2,)]


def test_without_a_command_line_nothing_is_printed(
    recordings: Path, config: PrepareConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    voxmill.prepare([str(recordings)], tmp_path / "corpus", config)
    assert capfd.readouterr() == ("", "")


def test_the_door_is_light() -> None:
    code = "import voxmill, sys; print(*[name for name in ('pipeline', 'numpy', 'typer') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
    assert voxmill.prepare is pipeline.prepare.prepare


def test_control_enters_prepare_once(recordings: Path, config: PrepareConfig, tmp_path: Path) -> None:
    """The run is one loop over the engine's events: no other file calls back into it."""
    home = pipeline.prepare.__file__
    callers: Counter[str] = Counter()

    def hook(frame: FrameType, event: str, _: object) -> None:
        back = frame.f_back.f_code.co_filename if frame.f_back else "a new thread"
        if event == "call" and frame.f_code.co_filename == home and back != home:
            callers[back] += 1

    with PrepareProgress(Terminal(quiet=True)) as progress:
        before = sys.getprofile()
        threading.setprofile(hook)
        sys.setprofile(hook)
        try:
            summary = voxmill.prepare([str(recordings)], tmp_path / "corpus", config, watch=progress)
        finally:
            sys.setprofile(before)
            threading.setprofile(None)
    assert summary.sessions == 2 and callers == {__file__: 1}
