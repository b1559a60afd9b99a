"""What `prepare` does with its sources before the first stage runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.recordings import noise, write

from pipeline import run
from pipeline.config import load_config


class Lines:
    """A watcher that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    def planned(self, sessions: int, audio_s: float) -> None:
        pass


def test_a_relative_corpus_folder_is_absolute_for_actors_and_hashes_are_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in" / "a.wav", noise(0.5, 16_000, seed=1), 16_000)
    roots: list[Path] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "check_weights", lambda names: None)
    monkeypatch.setattr(run, "_process", lambda root, *rest: roots.append(root))
    watcher = Lines()
    summary = run.prepare(["in"], "corpus", load_config(), watcher)  # type: ignore[arg-type]
    assert roots == [tmp_path / "corpus"] and summary.sources == 1
    assert any(line.startswith("1 recording found; 1 session, ") for line in watcher.said)
    assert (tmp_path / "corpus/hashes.json").is_file() and not (tmp_path / "corpus/hashes.jsonl").exists()


def test_a_password_in_an_argument_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "check_weights", lambda names: None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(run.PrepareError) as stopped:
        arguments = [str(tmp_path / "empty"), "memory://anna:geheim@none"]
        monkeypatch.setattr(run, "find_sources", lambda *args, **kwargs: run.FoundSources())
        run.prepare(arguments, tmp_path / "corpus", load_config(), Lines())  # type: ignore[arg-type]
    assert "no recordings in" in str(stopped.value) and "geheim" not in str(stopped.value)
