"""`query`, `status` and `show` as a person calls them."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_builders import make_unit
from typer.testing import CliRunner

from catalogs.corpus.commit import commit_unit, create_corpus
from catalogs.corpus.locks import only_run
from catalogs.corpus.reader import Corpus
from catalogs.corpus.thresholds import change_thresholds
from catalogs.inspection.show import UnknownSegmentError, show
from catalogs.inspection.status import status
from voxmill.cli import app


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "my corpus"
    create_corpus(path)
    unit = make_unit("a", 5)
    unit.rows[0]["snr_db"] = 10.0
    commit_unit(path, unit)
    return path


def call(*arguments: object, stdin: str | None = None) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    return done.exit_code, done.stdout


def test_sql_comes_from_a_file_or_standard_input(root: Path, tmp_path: Path) -> None:
    sql = "SELECT seq FROM segments WHERE seq > $n ORDER BY seq"
    (tmp_path / "q.sql").write_text(sql)
    for given, stdin in ((sql, None), (str(tmp_path / "q.sql"), None), ("-", sql)):
        assert call("query", root, given, "-p", "n=2", "--csv", stdin=stdin) == (0, '"seq"\n3\n4\n')
    assert call("query", root, sql, "-p", "n=2", "--tsv", "--limit", 1, "-o", tmp_path / "q.tsv") == (0, "")
    assert (tmp_path / "q.tsv").read_text() == '"seq"\n3\n'
    for wrong in (("--csv", "--nl"), ("--table", "--csv"), ("-o", "x.csv"), ("-p", "2=1")):
        done = CliRunner().invoke(app, ["query", str(root), sql, *wrong])
        assert isinstance(done.exception, ValueError) and "\n" not in str(done.exception)


def test_a_table_says_what_it_leaves_out(root: Path) -> None:
    done = CliRunner().invoke(app, ["query", str(root), "SELECT range AS n FROM range(1500)"])
    assert " 999 " in done.stdout and " 1000 " not in done.stdout.replace(",", "")
    assert "the first 1,000 rows" in done.stderr


def test_a_closed_pipe_ends_a_query_without_a_word(root: Path) -> None:
    command = [sys.executable, "-m", "voxmill.cli", "query", str(root), "SELECT * FROM range(10_000_000)", "--csv"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as run:
        assert run.stdout and run.stderr and run.stdout.readline() == b'"range"\n'
        run.stdout.close()
        assert run.wait() == 141 and run.stderr.read() == b""


def test_status_names_what_is_there_and_the_next_step(root: Path) -> None:
    found = status(root)
    assert (found.segments, found.kept, found.units, found.at_work) == (5, 3, 1, False)
    assert found.next_step == f"voxmill describe '{root}'" and found.thresholds == [] and found.last_run is None
    change_thresholds(root, ["min_snr_db=5"])
    (root / "run.json").write_text(json.dumps({"sessions": 1, "segments": 5, "kept": 4, "quarantined": []}))
    code, out = call("status", root, "--json")
    assert code == 0 and json.loads(out)["thresholds"] == [{"threshold": "min_snr_db", "default": "15", "now": "5"}]
    assert json.loads(out)["kept"] == 4 and json.loads(out)["last_run"]["kept"] == 4
    earlier = {"sessions": 7, "ended_at": "2020-01-02T03:04:05+00:00"}
    (root / "run-share.json").write_text(json.dumps(earlier))
    last = status(root).last_run
    assert last is not None and last["sessions"] == 1, (
        "the time of the file counts only if the run does not say its own"
    )
    (root / "run.json").write_text("{")
    last = status(root).last_run
    assert last is not None and (last["at"], last["sessions"]) == (earlier["ended_at"], 7)
    with only_run(root):
        assert "a run is at work" in call("status", root)[1]
    create_corpus(root.parent / "empty")
    assert status(root.parent / "empty").next_step.startswith("voxmill prepare RECORDINGS")


def test_show_tells_everything_of_a_clip(root: Path, tmp_path: Path) -> None:
    ids = Corpus(root).index.column("segment_id").to_pylist()
    found = show(root, ids[0])
    assert found.why == ["noisy: noise too close to the voice (snr_db is 10, min_snr_db is 15)"]
    assert [row["seq"] for row in show(root, ids[1]).neighbors] == [0, 2] and found.recording is not None
    start = next(ids[0][:size] for size in range(1, 17) if sum(one.startswith(ids[0][:size]) for one in ids) == 1)
    code, out = call("show", root, start, "--json", "--audio", tmp_path / "clip.flac")
    assert code == 0 and json.loads(out)["segment"]["segment_id"] == ids[0]
    samples, rate = Corpus(root).read_audio(ids[0])
    written, written_rate = soundfile.read(io.BytesIO((tmp_path / "clip.flac").read_bytes()), dtype="float32")
    assert rate == written_rate and np.array_equal(samples, written)


def test_an_unknown_or_short_id_gives_near_ones(root: Path) -> None:
    ids = Corpus(root).index.column("segment_id").to_pylist()
    mistyped = ids[2][:-1] + ("0" if ids[2][-1] != "0" else "1")
    with pytest.raises(UnknownSegmentError, match=f"no segment {mistyped}; near are: .*{ids[2]}"):
        show(root, mistyped)
    with pytest.raises(UnknownSegmentError, match="no segment ''"):
        show(root, "")


@pytest.mark.parametrize("player", ["ffplay", "aplay"])
def test_a_clip_is_played_by_what_is_there(
    root: Path, tmp_path: Path, player: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [first, *_] = Corpus(root).index.column("segment_id").to_pylist()
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    _, out = call("show", root, first, "--play")
    assert "no player here" in out and f"voxmill show '{root}' {first} --audio clip.flac" in out
    program = tmp_path / "bin" / player
    program.write_text(f'#!/bin/sh\nfor last; do :; done\n/bin/cp "$last" {tmp_path}/heard\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    assert call("show", root, first, "--play")[0] == 0
    kind = soundfile.info(str(tmp_path / "heard")).format
    assert kind == ("WAV" if player == "aplay" else "FLAC")
