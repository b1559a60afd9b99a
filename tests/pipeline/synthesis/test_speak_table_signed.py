"""`speak --table` signs every file, also in formats whose manifest stands beside it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from fakes.certificates import NEEDED, Issued, issued
from speaking import Speak, clips, files_of, loaded_once, rows_of, speak, write_csv

from pipeline.runs.errors import PrepareError
from voxcpm.provenance.c2pa.read import read_manifest

__all__ = ["clips", "loaded_once", "speak"]
pytestmark = NEEDED


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Issued:
    return issued(tmp_path_factory.mktemp("papers"))


def test_every_row_is_signed(speak: Speak, clips: Path, papers: Issued, tmp_path: Path) -> None:
    # An Opus file does not hold its manifest: two files are moved to their places.
    table = write_csv(tmp_path / "t.csv", "text,reference", f"Hi,{clips / 'ref.wav'}", "Ho,")
    options = ("format=opus", f"sign_key={papers.key}", f"sign_cert={papers.cert}")
    speak(table, tmp_path / "out", *options)
    rows = rows_of(tmp_path / "out")
    digest = f"sha256:{hashlib.sha256((clips / 'ref.wav').read_bytes()).hexdigest()}"
    for row, expected in zip(rows, ([digest], []), strict=True):
        found = read_manifest(tmp_path / "out" / row["audio"], papers.root)
        assert found is not None and (found.state, found.embedded) == ("Trusted", False)
        assert [one.identity for one in found.ingredients] == expected
        assert "created" not in found.generation
    assert sum(name.endswith(".c2pa") for name in files_of(tmp_path / "out")) == 2
    # A folder is signed as a whole: with another word on training, or without a key, it is another one.
    for others in ((*options, "sign_training=allowed"), options[:1]):
        with pytest.raises(PrepareError, match="signed"):
            speak(table, tmp_path / "out", *others)


def test_a_key_that_cannot_sign_is_said_in_one_line(speak: Speak, papers: Issued, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", "text", "Hi")
    with pytest.raises(Exception, match="--sign-key and --sign-cert belong together") as refused:
        speak(table, tmp_path / "out", f"sign_key={papers.key}")
    assert "\n" not in str(refused.value)
