"""What `prepare` does with its sources before the first stage runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fakes.recordings import noise, write

from catalogs.corpus.commit import create_corpus
from pipeline import prepare
from pipeline.config import load_config
from pipeline.inputs.find import SourceError, SourceListing
from pipeline.runs.errors import PrepareError


def test_a_relative_corpus_folder_is_absolute_for_actors_and_hashes_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    write(tmp_path / "in" / "a.wav", noise(0.5, 16_000, seed=1), 16_000)
    roots: list[Path] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(prepare, "check_weights", lambda names: None)
    monkeypatch.setattr(prepare, "_run", lambda root, *rest: roots.append(root))
    summary = prepare.prepare(["in"], "corpus", load_config())
    assert roots == [tmp_path / "corpus"] and summary.sources == 1
    assert any(line.startswith("1 recording found; 1 session, ") for line in caplog.messages)
    assert (tmp_path / "corpus/hashes.jsonl").is_file()


def test_a_password_in_an_argument_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "check_weights", lambda names: None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PrepareError) as stopped:
        arguments = [str(tmp_path / "empty"), "memory://anna:geheim@none"]
        monkeypatch.setattr("pipeline.runs.sources.SourceListing", lambda paths, **kwargs: SourceListing(paths[:1]))
        prepare.prepare(arguments, tmp_path / "corpus", load_config())
    assert "no recordings in" in str(stopped.value) and "geheim" not in str(stopped.value)


def _bad_manifest(folder: Path) -> str:
    (folder / "list.csv").write_text("nothing,here\n1,2\n")
    return str(folder / "list.csv")


FAILED_STARTS = {
    "a wrong path": lambda folder: str(folder / "nowhere"),
    "an empty folder": lambda folder: str(folder / "empty"),
    "an unknown protocol": lambda folder: "gopher9://host/recordings",
    "a missing library": lambda folder: "s3://bucket/recordings",
    "a bad manifest": _bad_manifest,
}


@pytest.mark.parametrize("start", FAILED_STARTS)
def test_a_start_that_fails_leaves_no_corpus_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    monkeypatch.setattr(prepare, "check_weights", lambda names: None)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    (tmp_path / "empty").mkdir()
    given = FAILED_STARTS[start](tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((PrepareError, SourceError)):
        prepare.prepare([given], tmp_path / "new" / "corpus", load_config())
    assert sorted(tmp_path.rglob("*")) == before


def test_a_start_that_fails_leaves_folders_that_were_there_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "check_weights", lambda names: None)
    empty, corpus = tmp_path / "empty", tmp_path / "corpus"
    empty.mkdir()
    (empty / ".keep").write_text("mine")
    create_corpus(corpus)
    before = sorted(corpus.rglob("*"))
    for out in (empty, corpus):
        with pytest.raises(SourceError):
            prepare.prepare([str(tmp_path / "nowhere")], out, load_config())
    assert [path.name for path in empty.iterdir()] == [".keep"]
    assert set(before) <= set(corpus.rglob("*"))


def test_a_start_that_fails_after_hours_of_hashing_keeps_the_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in" / "a.wav", noise(0.5, 16_000, seed=1), 16_000)
    monkeypatch.setattr(prepare, "check_weights", lambda names: None)

    def stopped(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.runs.sources.note_refused", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare([str(tmp_path / "in")], tmp_path / "corpus", load_config())
    assert (tmp_path / "corpus/corpus.json").is_file() and (tmp_path / "corpus/hashes.jsonl").is_file()


@pytest.mark.parametrize("out", ["s3://bucket/corpus", Path("s3://bucket/corpus"), "memory://corpus"])
def test_a_store_is_refused_as_a_corpus_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str | Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PrepareError, match="give a folder, and copy it"):
        prepare.prepare([str(tmp_path)], out, load_config())
    assert not list(tmp_path.iterdir())
