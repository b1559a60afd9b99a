"""`voxmill mark --read`: what files state, for people and for programs, and one line for what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from voxcpm.inference.write_audio import write_audio
from voxcpm.provenance.statement import Statement
from voxmill import cli

STATEMENT = Statement("tiny", "0123456789abcdef", 7, created="2026-11-30T06:00:00Z")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, mark in (("speech.flac", STATEMENT), ("plain.wav", False)):
        write_audio(tmp_path / name, np.zeros(4800, np.float32), 48_000, mark)
    return tmp_path


def test_what_a_file_states_is_printed(place: Path) -> None:
    done = CliRunner().invoke(cli.app, ["mark", "--read", "speech.flac"], catch_exceptions=False)
    assert done.exit_code == 0 and done.stdout.startswith("speech.flac: synthetic\n")
    for words in ("tiny", "0123456789abcdef", "7", "2026-11-30T06:00:00Z", "voxmill"):
        assert words in done.stdout


def test_a_file_without_a_statement_is_status_one(place: Path) -> None:
    done = CliRunner().invoke(cli.app, ["mark", "--read", "speech.flac", "plain.wav", "--json"], catch_exceptions=False)
    assert done.exit_code == 1 and "plain.wav: no statement found" in done.stderr
    assert json.loads(done.stdout) == [
        {"file": "speech.flac", "statement": STATEMENT.to_dict(), "manifest": None},
        {"file": "plain.wav", "statement": None, "manifest": None},
    ]


def test_what_cannot_be_read_is_said(place: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no audio file at gone\.wav"):
        CliRunner().invoke(cli.app, ["mark", "--read", "gone.wav"], catch_exceptions=False)
    with pytest.raises(FileNotFoundError, match=r"no certificates at gone\.pem"):
        CliRunner().invoke(cli.app, ["mark", "--read", "speech.flac", "--trust", "gone.pem"], catch_exceptions=False)
    with pytest.raises(ValueError, match="voxmill mark --read FILE"):
        CliRunner().invoke(cli.app, ["mark", "speech.flac"], catch_exceptions=False)
