"""Bad input gives one clear line on standard error and a non-zero exit status; never a traceback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.processes import PATIENCE_S

from voxmill import cli


def one_line(status: object, out: str, err: str) -> str:
    """What was said on standard error, checked to be one line."""
    assert status == 1, out + err
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("voxmill: "), err
    assert "Traceback" not in err and "unexpected" not in err
    return lines[0]


@pytest.fixture
def complain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What `voxmill` says on standard error, called in this process and in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["voxmill", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return one_line(stopped.value.code, *capfd.readouterr())

    return call


def process_complains(*arguments: str, cwd: Path) -> str:
    """What a process says on standard error from its first import to its end."""
    command = [sys.executable, "-m", "voxmill.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=PATIENCE_S)
    return one_line(done.returncode, done.stdout, done.stderr)


def words_of(value: object) -> str:
    """A test's name."""
    return " ".join(value)[:60] if isinstance(value, tuple) else ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("query", "nowhere", "select 1"), "not a corpus"),
        (("prepare", ".", "--out", "corpus", "--set", "nonsense"), "key=value"),
        (("train", "toy", "--set", "corpus=nowhere", "--set", "output=model"), "not a corpus"),
        (("speak", "hello", "--model", "nowhere", "-o", "x.wav"), "nowhere"),
    ],
    ids=words_of,
)
def test_a_process_says_one_clear_line(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    """Of each kind of command one: nothing that is imported says anything more."""
    assert words in process_complains(*arguments, cwd=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("report", "nowhere"), "not a corpus"),
        (("fsck", "nowhere"), "not a corpus"),
        (("catalog", "nowhere"), "not a corpus"),
        (("describe", "nowhere"), "not a corpus"),
        (("prepare", "nowhere", "--out", "corpus"), "nowhere: no such file or folder"),
        (("prepare", ".", "--out", "corpus", "--set", "trancribe.beam_size=1"), "did you mean transcribe"),
        (("prepare", ".", "--out", "corpus", "--set", "transcribe.beam=1"), "did you mean beam_size"),
        (("prepare", ".", "--out", "corpus", "--set", "transcribe.beam_size=0"), "transcribe.beam_size"),
        (("prepare", ".", "--out", "corpus", "--set", "profile=huge"), "profile"),
        (("prepare", ".", "--out", "corpus", "--config", "none.yaml"), "cannot read the config"),
        (("models", "pull", "whisper-bas"), "did you mean whisper-base"),
        (("train", "no-such-recipe"), "recipes:"),
        (("train", "toy", "--set", "phases.toy.stps=1"), "did you mean steps"),
    ],
    ids=words_of,
)
def test_one_clear_line(arguments: tuple[str, ...], words: str, complain: Callable[..., str]) -> None:
    assert words in complain(*arguments)


def test_a_folder_with_other_things_is_not_made_a_corpus(tmp_path: Path, complain: Callable[..., str]) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").touch()
    (tmp_path / "a.wav").touch()
    assert "not empty and not a corpus" in complain("prepare", "a.wav", "--out", "photos")


def test_a_query_with_a_wrong_name_is_told_the_right_one(tmp_path: Path, complain: Callable[..., str]) -> None:
    from catalogs.corpus.commit import create_corpus

    create_corpus(tmp_path / "corpus")
    assert "segments" in complain("query", "corpus", "select * from segment")
