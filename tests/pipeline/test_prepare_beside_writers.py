"""`prepare` beside other writers of the same corpus: it sweeps what the dead left, and nothing of the living."""

from __future__ import annotations

from pathlib import Path

from fakes.chaos_run import CheapConfig
from fakes.recordings import noise, write

from catalogs.corpus.locks import own_scratch
from catalogs.corpus.reader import Corpus
from pipeline.prepare import prepare


def test_prepare_leaves_the_drafts_of_other_writers_alone(tmp_path: Path) -> None:
    write(tmp_path / "in" / "talk.wav", noise(4.6, 16_000, seed=1), 16_000)
    config = CheapConfig(engine={"executor": "inline"}, describe="none")
    tmp = tmp_path / "corpus" / "tmp"
    prepare([str(tmp_path / "in")], tmp_path / "corpus", config)
    (tmp / "unit.0badcafe").mkdir()
    (tmp / "unit.0badcafe" / "half").write_bytes(b"left by a killed run")
    write(tmp_path / "in" / "more.wav", noise(4.6, 16_000, seed=2), 16_000)
    with own_scratch(tmp) as folder:
        (folder / "draft").write_bytes(b"of describe")
        prepare([str(tmp_path / "in")], tmp_path / "corpus", config)
        assert (folder / "draft").read_bytes() == b"of describe"
        assert {path.name for path in tmp.iterdir()} == {folder.name, f"{folder.name}.lock"}
    assert len(list(Corpus(tmp_path / "corpus").records)) == 2
