"""From recordings to a corpus through the command line, and what can then be asked of it. Real speech, real models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from catalogs.weights import registry
from voxmill.cli import app

pytestmark = pytest.mark.slow
#: How the corpus is made. That several windows of a recording vote for its language: tests/pipeline/test_transcribe.py.
MADE = ("--executor", "inline", "--set", "transcribe.beam_size=1", "--set", "transcribe.language_windows=1")


def run(*arguments: str) -> Any:
    """The JSON a command prints."""
    done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def recordings(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sessions of read speech, a tune, a broken file and a note."""
    for name in registry.profile("small"):
        if not registry.available(name):
            pytest.skip(f"weights {name} are not here: voxmill models pull small")
    folder = tmp_path_factory.mktemp("recordings")
    for path in sorted((corpora / "read").glob("2412-*.flac")):
        (folder / "reader").mkdir(exist_ok=True)
        shutil.copy(path, folder / "reader" / path.name)
    for path in sorted((corpora / "ravdess" / "actor_02").glob("*.flac"))[:4]:
        (folder / "actor").mkdir(exist_ok=True)
        shutil.copy(path, folder / "actor" / path.name)
    shutil.copy(corpora / "music" / "test.mp3", folder / "tune.mp3")
    (folder / "not_audio.wav").write_text("meeting notes")
    (folder / "readme.txt").write_text("recorded in spring")
    return folder


@pytest.fixture(scope="module")
def corpus(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora") / "corpus"
    summary = run("prepare", str(recordings), "--out", str(folder), *MADE)
    assert summary["sources"] == 8 and summary["ignored_files"] == 1
    assert summary["kept"] >= 4
    assert [Path(row["path"]).name for row in summary["quarantined"]] == ["not_audio.wav"]
    return folder


def test_the_contract_s_question_is_answered(corpus: Path) -> None:
    sql = "select language, count(*), sum(duration_s) from segments where kept group by 1"
    (row,) = run("query", str(corpus), sql)
    assert row["language"] == "en" and row["sum(duration_s)"] > 20


def test_plain_duckdb_answers_too(corpus: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import duckdb

    monkeypatch.chdir(tmp_path)
    with duckdb.connect(str(corpus / "catalog.duckdb"), read_only=True) as connection:
        kept, described = connection.execute(
            "select count(*), count(d.brief) from segments s left join descriptions d using (segment_id) where kept"
        ).fetchall()[0]
    assert kept == described >= 4


def test_datasets_reads_a_shard(corpus: Path, tmp_path: Path) -> None:
    from datasets import Audio, load_dataset

    shards = [str(path) for path in (corpus / "segments").glob("*/*.arrow")]
    rows = load_dataset("arrow", data_files=shards, split="train", cache_dir=str(tmp_path))
    assert isinstance(rows.features["audio"], Audio)
    first = rows.cast_column("audio", Audio(decode=False))[0]
    assert first["audio"]["bytes"][:4] == b"fLaC" and first["text"]


def test_every_second_is_accounted_for(corpus: Path) -> None:
    (total,) = run("query", str(corpus), "select sum(duration_s) as s from recordings")
    (parts,) = run("query", str(corpus), "select sum(seconds) as s from funnel")
    assert parts["s"] == pytest.approx(total["s"], abs=0.05)
    assert run("fsck", str(corpus))["problems"] == []


def test_references_keep_the_rule(corpus: Path) -> None:
    rows = run(
        "query",
        str(corpus),
        "select a.session_id = b.session_id as same, p.gap, p.cosine from reference_pairs p"
        " join segments a using (segment_id) join segments b on b.segment_id = p.reference_id",
    )
    assert rows and all(row["same"] and row["gap"] not in (0, 1) and row["cosine"] > 0.7 for row in rows)


def test_music_is_no_speech_and_keeps_its_row(corpus: Path) -> None:
    rows = run("query", str(corpus), "select kept, reasons, row from segments where session_id = 'tune.mp3'")
    assert rows and all(not row["kept"] and row["row"] is None for row in rows)


def test_running_again_does_nothing(corpus: Path, recordings: Path) -> None:
    before = run("query", str(corpus), "select segment_id from segments order by 1")
    summary = run("prepare", str(recordings), "--out", str(corpus), *MADE)
    assert summary["already_there"] == 8 and summary["segments"] == 0
    assert run("query", str(corpus), "select segment_id from segments order by 1") == before


def test_a_recording_that_is_added_is_all_that_is_done(corpus: Path, recordings: Path, corpora: Path) -> None:
    shutil.copy(sorted((corpora / "ravdess" / "actor_02").glob("*.flac"))[4], recordings / "added.flac")
    summary = run("prepare", str(recordings), "--out", str(corpus), *MADE)
    assert summary["already_there"] == 8 and summary["sessions"] == 1
    assert run("fsck", str(corpus))["problems"] == []


def test_other_settings_are_refused_until_asked_for(corpus: Path, recordings: Path) -> None:
    arguments = ["prepare", str(recordings), "--out", str(corpus), *MADE, "--set", "transcribe.beam_size=2"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1 and "--redo" in str(done.exception)


def test_the_report_is_one_page_that_needs_nothing(corpus: Path, tmp_path: Path) -> None:
    page = Path(run("report", str(corpus), "--out", str(tmp_path / "report.html"))["report"]).read_text(
        encoding="utf-8"
    )
    assert "<html" in page and "data:audio" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and 'src="http' not in page
