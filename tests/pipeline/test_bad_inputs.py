"""Everything that people give by mistake, through the whole chain: all of it accounted for, and nothing stops the run."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pytest
import soundfile
import soxr
from fakes.bad_inputs import EMPTY, KINDS, LEFT, REFUSED, USED, make_bad_inputs, make_zip_bomb
from typer.testing import CliRunner

from catalogs.corpus.fsck import fsck
from catalogs.weights import registry
from pipeline.config import load_config
from voxmill.cli import app

pytestmark = pytest.mark.usefixtures("encoded_once")
# A given language: to find it takes four times as long as to recognize the phrase, in each of twenty files.
SETTINGS = ["engine.executor=inline", "describe=none", "transcribe.beam_size=1", "sources.language=en"]


def test_every_kind_is_accounted_for_and_none_stops_the_run(corpora: Path, tmp_path: Path) -> None:
    if missing := [name for name in load_config(None, SETTINGS).weights() if not registry.available(name)]:
        pytest.skip(f"the weights {', '.join(missing)} are not here (voxmill models pull small)")
    # One phrase: each further one would be recognized in all of the twenty files that are used.
    samples, rate = soundfile.read(corpora / "read" / "jfk.flac", dtype="float32", always_2d=True)
    speech = np.asarray(soxr.resample(samples[: round(2.75 * rate)].mean(axis=1), rate, 16_000), dtype=np.float32)
    fates = make_bad_inputs(tmp_path / "in", speech)
    assert len(KINDS) >= 45
    bomb = make_zip_bomb(tmp_path / "bomb.zip")
    arguments = ["prepare", str(tmp_path / "in"), str(bomb), "-o", str(tmp_path / "out")]
    arguments += [word for setting in SETTINGS for word in ("--set", setting)]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output[-3000:]
    assert "Traceback" not in done.output
    found = dict.fromkeys(fates, LEFT)
    with duckdb.connect(str(tmp_path / "out" / "catalog.duckdb"), read_only=True) as database:
        for path, status, spoken in database.execute(
            "select path, status, (select count(*) from segments s where s.source_id = r.source_id"
            " and not list_contains(reasons, 'no_speech')) from recordings r"
        ).fetchall():
            if path.startswith(f"{tmp_path}/in/"):
                found[path.removeprefix(f"{tmp_path}/in/")] = {"ok": USED, "empty": EMPTY}.get(status, status)
                assert (spoken > 0) == (status == "ok"), f"{path}: {status} with {spoken} segments"
        for path, error in database.execute("select path, error from quarantine").fetchall():
            assert error and "\n" not in error and len(error) < 200, f"{path}: {error}"
            found[path.removeprefix(f"{tmp_path}/in/")] = REFUSED
    wrong = {name: f"{found[name]}, should be {fate}" for name, fate in fates.items() if found[name] != fate}
    assert not wrong, wrong
    assert not list(tmp_path.rglob("escaped.wav")), "a zip wrote outside of its folder"
    assert [str(problem) for problem in fsck(tmp_path / "out")] == []
