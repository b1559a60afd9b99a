"""`voxmill speak --sign-key` and `mark --read`: signed from one end to the other, and one line for what cannot be."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from fakes.certificates import NEEDED, Issued, issued
from safetensors.torch import load_file
from typer.testing import CliRunner

from voxcpm.provenance.c2pa.read import read_manifest
from voxcpm.provenance.files import read_marks
from voxmill import cli

pytestmark = NEEDED

QUICK = ("--steps", "1", "--seed", "7", "--max-seconds", "0.4")


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Issued:
    return issued(tmp_path_factory.mktemp("papers"))


@pytest.fixture
def place(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.set_num_threads(1)
    stored = load_file(golden / "generation.safetensors")
    for name in ("ref", "prompt"):
        soundfile.write(tmp_path / f"{name}.wav", stored[f"{name}_wav_16k"].numpy(), 16000, subtype="FLOAT")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> Any:
    done = CliRunner().invoke(cli.app, list(words), catch_exceptions=False)
    return done


def signing(papers: Issued) -> tuple[str, ...]:
    return ("--sign-key", str(papers.key), "--sign-cert", str(papers.cert))


def test_speech_is_signed_and_read_back(place: Path, golden: Path, papers: Issued) -> None:
    clips = ("--reference", "ref.wav", "--prompt", "prompt.wav", "--prompt-text", "It was the best of times, ")
    words = ("speak", "Hello world", "-m", str(golden / "checkpoint"), *QUICK, *signing(papers), *clips)
    assert run(*words, "-o", "a.opus", "--sign-training", "allowed").exit_code == 0
    done = run("mark", "--read", "a.opus", "--trust", str(papers.root))
    assert done.exit_code == 0
    told = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for line in (
        "manifest Trusted, beside the file",
        "signed by Anna, Studio",
        "source compositeWithTrainedAlgorithmicMedia",
        "training allowed",
        *(
            f"from {role} (inputTo) sha256:{hashlib.sha256((place / name).read_bytes()).hexdigest()}"
            for role, name in (("reference", "ref.wav"), ("prompt", "prompt.wav"))
        ),
    ):
        assert line in told, done.stdout
    # The file is changed: the statement is still read, the manifest is invalid.
    data = bytearray((place / "a.opus").read_bytes())
    data[-9] ^= 1
    (place / "a.opus").write_bytes(data)
    done = run("mark", "--read", "a.opus", "--json")
    (row,) = json.loads(done.stdout)
    assert done.exit_code == 1 and row["statement"]["synthetic"] is True
    assert row["manifest"]["state"] == "Invalid" and row["manifest"]["embedded"] is False


@pytest.mark.parametrize("ways", [("--stream",), ("--file", "lines.txt")])
def test_streams_and_batches_are_signed(ways: tuple[str, ...], place: Path, golden: Path, papers: Issued) -> None:
    (place / "lines.txt").write_text("Hi\nHo\n", encoding="utf-8")
    out = ("-o", "out") if "--file" in ways else ("Hi", "-o", "out/a.wav")
    assert run("speak", *out, "-m", str(golden / "checkpoint"), *QUICK, *ways, *signing(papers)).exit_code == 0
    made = sorted((place / "out").iterdir())
    assert len(made) == (2 if "--file" in ways else 1)
    for path in made:
        found, stated = read_manifest(path, papers.root), read_marks(path)
        assert found is not None and found.state == "Trusted" and stated is not None
        assert found.generation == stated.to_dict()


def test_without_the_extra_nothing_is_spoken_and_a_manifest_is_noted(
    place: Path, golden: Path, papers: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("speak", "Hi", "-m", str(golden / "checkpoint"), *QUICK, *signing(papers), "-o")
    assert run(*words, "a.wav").exit_code == 0
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(ValueError, match=r"pip install 'voxmill\[provenance\]'"):
        run(*words, "b.wav")
    assert not (place / "b.wav").exists()
    done = run("mark", "--read", "a.wav", "--json")
    (row,) = json.loads(done.stdout)
    assert done.exit_code == 0 and row["statement"] and "voxmill[provenance]" in row["manifest"]["fault"]
    assert "manifest   not read" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-o", "-", "--stream"), "-o - with --stream or --long cannot be signed"),
        (("-o", "a.wav", "--no-mark"), "--no-mark leaves out what --sign-key signs"),
    ],
)
def test_what_cannot_be_signed_is_said_before_anything_is_loaded(
    options: tuple[str, ...], words: str, place: Path, papers: Issued
) -> None:
    with pytest.raises(ValueError, match=words):
        run("speak", "Hi", "-m", "no/such/model", *options, *signing(papers))
