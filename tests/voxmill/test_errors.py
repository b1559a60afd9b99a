"""Bad input gives one clear line on standard error and a non-zero exit status; never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fakes.processes import PATIENCE_S


def complain(*arguments: str, cwd: Path) -> str:
    """What `voxmill` says on standard error, checked to be one line."""
    command = [sys.executable, "-m", "voxmill.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=PATIENCE_S)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("voxmill: "), done.stderr
    assert "Traceback" not in done.stderr and "unexpected" not in done.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("query", "nowhere", "select 1"), "not a corpus"),
        (("report", "nowhere"), "not a corpus"),
        (("fsck", "nowhere"), "not a corpus"),
        (("catalog", "nowhere"), "not a corpus"),
        (("describe", "nowhere"), "not a corpus"),
        (("prepare", "nowhere", "--out", "corpus"), "nowhere: no such file or folder"),
        (("prepare", ".", "--out", "corpus", "--set", "trancribe.beam_size=1"), "did you mean transcribe"),
        (("prepare", ".", "--out", "corpus", "--set", "transcribe.beam=1"), "did you mean beam_size"),
        (("prepare", ".", "--out", "corpus", "--set", "transcribe.beam_size=0"), "transcribe.beam_size"),
        (("prepare", ".", "--out", "corpus", "--set", "nonsense"), "key=value"),
        (("prepare", ".", "--out", "corpus", "--set", "profile=huge"), "profile"),
        (("prepare", ".", "--out", "corpus", "--config", "none.yaml"), "cannot read the config"),
        (("models", "pull", "whisper-bas"), "did you mean whisper-base"),
        (("train", "no-such-recipe"), "recipes:"),
        (("train", "toy", "--set", "corpus=nowhere", "--set", "output=model"), "not a corpus"),
        (("train", "toy", "--set", "phases.toy.stps=1"), "did you mean steps"),
        (("speak", "hello", "--model", "nowhere", "-o", "x.wav"), "nowhere"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else "",
)
def test_one_clear_line(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    assert words in complain(*arguments, cwd=tmp_path)


def test_a_folder_with_other_things_is_not_made_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").touch()
    (tmp_path / "a.wav").touch()
    assert "not empty and not a corpus" in complain("prepare", "a.wav", "--out", "photos", cwd=tmp_path)


def test_a_query_with_a_wrong_name_is_told_the_right_one(tmp_path: Path) -> None:
    from catalogs.corpus.commit import create_corpus

    create_corpus(tmp_path / "corpus")
    assert "segments" in complain("query", "corpus", "select * from segment", cwd=tmp_path)
