"""Signatures beside those of the package model-signing, which has a Python environment of its own (`make signing-venv`)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="the extra `provenance` is not installed")

from test_signing import FILES, write_keys

from voxcpm.weights.signing.model import sign_model, verify_model

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = Path(os.environ.get("VOXMILL_MODEL_SIGNING_PYTHON", REPOSITORY / ".signing-venv" / "bin" / "python"))
pytestmark = pytest.mark.skipif(not PYTHON.is_file(), reason="no package model-signing beside: make signing-venv")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    for name, data in {**FILES, "a-b": b"1", "a/b": b"2", "a.b": b"3", ".git/HEAD": b"main"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def theirs(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(PYTHON), "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("place", ["inside", "beside"])
def test_they_verify_what_we_sign(place: str, model: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    curve = ec.SECP256R1() if place == "inside" else ec.SECP384R1()
    private, public = write_keys(ec.generate_private_key(curve), tmp_path)
    signature = (model if place == "inside" else tmp_path) / "model.sig"
    sign_model(model, private, signature)
    words = ("verify", "key", model, "--public_key", public, "--signature", signature)
    good = theirs(*words)
    assert good.returncode == 0, good.stderr
    (model / "a" / "b").write_bytes(b"4")
    (model / "more").write_bytes(b"")
    bad = theirs(*words)
    assert bad.returncode == 1 and "a/b" in bad.stderr and "more" in bad.stderr


def test_we_verify_what_they_sign(model: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    private, public = write_keys(ec.generate_private_key(ec.SECP256R1()), tmp_path)
    (model / "notes.txt").write_bytes(b"not signed")
    done = theirs(
        *("sign", "key", model, "--private_key", private, "--signature", model / "model.sig"),
        *("--ignore-paths", model / "notes.txt"),
    )
    assert done.returncode == 0, done.stderr
    found = verify_model(model, public)
    assert found.whole and found.files == len(FILES) + 3 and found.not_covered == (".git", "notes.txt")
    (model / "a.b").unlink()
    (model / "lineage.json").write_bytes(b"{}")
    found = verify_model(model, public)
    assert (found.missing, found.changed, found.extra) == (("a.b",), ("lineage.json",), ())
