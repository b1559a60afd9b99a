"""Signed manifests: made and verified in every format, changed, beside a file, and what cannot sign."""

from __future__ import annotations

import hashlib
import io
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mutagen
import numpy as np
import pytest
from encoded_audio import RATE, STATEMENT, decoded, encoded, sweep
from fakes.certificates import NEEDED, Issued, issued
from hypothesis import example, given, settings
from hypothesis import strategies as st

from voxcpm.inference.write_audio import write_audio, write_stream
from voxcpm.provenance.c2pa.claim import Clip, manifest_of
from voxcpm.provenance.c2pa.library import C2paError
from voxcpm.provenance.c2pa.read import read_claims, read_manifest
from voxcpm.provenance.c2pa.signer import Signer, Signing, signing_of
from voxcpm.provenance.c2pa.store import EMBEDDED, find_manifest, sidecar_of
from voxcpm.provenance.files import read_marks
from voxcpm.server.encode import FORMATS

pytestmark = NEEDED

WAV = sweep(12_000)
ANSWERS = sorted(set(FORMATS) - {"pcm"})


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Issued:
    return issued(tmp_path_factory.mktemp("papers"))


@pytest.fixture(scope="module")
def signer(papers: Issued) -> Signer:
    return Signer(papers.key, papers.cert)


def signed(signer: Signer, folder: Path, name: str, **options: Any) -> Path:
    """A file of a format, signed, with its manifest beside it if it holds none."""
    path = folder / f"speech.{name}"
    made = signer.sign(encoded(name, WAV, whole=True), STATEMENT, **options)
    path.write_bytes(made.data)
    if made.sidecar is not None:
        sidecar_of(path).write_bytes(made.sidecar)
    return path


@pytest.mark.parametrize("name", ANSWERS)
def test_every_format_is_signed_and_verified_beside_its_statement(
    name: str, signer: Signer, papers: Issued, tmp_path: Path
) -> None:
    path = signed(signer, tmp_path, name, payload=0x12AB)
    found = read_manifest(path, papers.root)
    assert found is not None and found.state == "Trusted" and not found.faults
    assert found.embedded == (name in EMBEDDED) == (not sidecar_of(path).exists())
    assert (found.issuer, found.signer, found.created_by) == ("Studio", "Anna", STATEMENT.generator)
    assert (found.source_type, found.synthetic, found.training) == ("trainedAlgorithmicMedia", True, "notAllowed")
    assert found.created == STATEMENT.created and found.watermark == "org.voxmill.watermark.1 12ab"
    assert found.generation == STATEMENT.to_dict()
    untrusted = read_manifest(path)
    assert untrusted is not None and untrusted.state == "Valid"
    # The statement and the samples are what they were.
    assert read_marks(path) == STATEMENT
    before, after = decoded(encoded(name, WAV, whole=True)), decoded(path.read_bytes())
    np.testing.assert_array_equal(before[0], after[0])
    if name in ("wav", "flac", "mp3", "m4a"):
        assert mutagen.File(path).info.length == pytest.approx(len(WAV) / RATE, abs=0.1)


@pytest.mark.parametrize("name", ANSWERS)
def test_one_changed_byte_makes_it_invalid(name: str, signer: Signer, papers: Issued, tmp_path: Path) -> None:
    path = signed(signer, tmp_path, name)
    data = bytearray(path.read_bytes())
    # A byte of the audio: in these formats the manifest is at an end, and in an M4A the index is.
    place = data.index(b"mdat") + 300 if name == "m4a" else len(data) // 2 if name == "wav" else len(data) - 40
    data[place] ^= 1
    path.write_bytes(data)
    found = read_manifest(path, papers.root)
    assert found is not None and found.state == "Invalid"
    assert any("hash" in fault.lower() for fault in found.faults)


def test_a_changed_manifest_is_invalid_and_a_file_saved_again_has_none(
    signer: Signer, papers: Issued, tmp_path: Path
) -> None:
    path = signed(signer, tmp_path, "wav")
    path.write_bytes(path.read_bytes().replace(b"notAllowed", b"notallowed"))
    found = read_manifest(path, papers.root)
    assert found is not None and found.state == "Invalid"
    write_audio(path, WAV, RATE)
    assert read_manifest(path) is None and read_marks(path) is not None


def test_the_hash_of_a_clip_is_that_of_its_file(signer: Signer, tmp_path: Path) -> None:
    clip = tmp_path / "her voice.wav"
    write_audio(clip, WAV, RATE, False)
    digest = hashlib.sha256(clip.read_bytes()).hexdigest()
    path = signed(signer, tmp_path, "flac", clips=[Clip.of(clip)])
    found = read_manifest(path)
    assert found is not None and found.source_type == "trainedAlgorithmicMedia"
    (one,) = found.ingredients
    assert (one.title, one.relationship, one.identity) == ("reference", "inputTo", f"sha256:{digest}")
    assert found.generation["clips"] == [{"sha256": digest, "role": "reference"}]
    # Neither its name nor its sound.
    store, _ = find_manifest(path) or (b"", True)
    assert b"her voice" not in store and len(store) < 8_000


def test_speech_that_continues_a_recording_is_a_composite(signer: Signer, tmp_path: Path) -> None:
    clips = [Clip("ab" * 32), Clip("cd" * 32, "prompt"), Clip(None, "voice")]
    found = read_manifest(signed(signer, tmp_path, "mp3", clips=clips))
    assert found is not None and found.source_type == "compositeWithTrainedAlgorithmicMedia" and found.synthetic
    assert {(one.title, one.identity[:9]) for one in found.ingredients} == {
        ("reference", "sha256:ab"),
        ("prompt", "sha256:cd"),
    }
    # One clip may be both; a prompt of unknown hash still makes a composite.
    both = manifest_of(STATEMENT, [Clip("ab" * 32), Clip("ab" * 32, "prompt")])
    assert [one["title"] for one in both["ingredients"]] == ["prompt"]
    unknown = read_manifest(signed(signer, tmp_path, "mp3", clips=[Clip(None, "prompt")]))
    assert unknown is not None and not unknown.ingredients
    assert unknown.source_type == "compositeWithTrainedAlgorithmicMedia"


@pytest.mark.parametrize(("training", "refused"), [("allowed", False), ("constrained", True), ("notAllowed", True)])
def test_what_is_said_of_training_is_read_without_the_file(
    training: Any, refused: bool, signer: Signer, tmp_path: Path
) -> None:
    for name in ("wav", "m4a", "opus"):
        found = find_manifest(signed(signer, tmp_path, name, training=training))
        assert found is not None
        claims = read_claims(found[0])
        assert claims is not None and (claims.synthetic, claims.no_training) == (True, refused)


def test_values_that_a_manifest_cannot_state_are_refused() -> None:
    with pytest.raises(ValueError, match=r"payload 65536 .* outside 0\.\.65535"):
        manifest_of(STATEMENT, payload=65_536)
    with pytest.raises(ValueError, match="'never' is not one of allowed, notAllowed, constrained"):
        manifest_of(STATEMENT, training="never")  # type: ignore[arg-type]


@pytest.mark.parametrize(("suffix", "beside"), [(".wav", False), (".flac", False), (".mp3", False), (".opus", True)])
def test_files_are_written_signed(suffix: str, beside: bool, signer: Signer, papers: Issued, tmp_path: Path) -> None:
    for write, samples in ((write_audio, WAV), (_streamed, WAV)):
        path = tmp_path / f"{write.__name__}{suffix}"
        assert write(path, samples, RATE, STATEMENT, Signing(signer, payload=7)) == len(WAV)
        found = read_manifest(path, papers.root)
        assert found is not None and (found.state, found.embedded) == ("Trusted", not beside)
        assert read_marks(path) == STATEMENT
    assert not list(tmp_path.glob(".*")) and len(list(tmp_path.iterdir())) == (4 if beside else 2)


def test_a_manifest_beside_a_file_is_of_this_file_only(signer: Signer, tmp_path: Path) -> None:
    names = ("a.ogg", "a.opus")
    for name in names:
        write_audio(tmp_path / name, WAV, RATE, STATEMENT, Signing(signer))
    write_audio(tmp_path / "a.flac", WAV, RATE, False)
    assert sorted(path.name for path in tmp_path.glob("*.c2pa")) == ["a.ogg.c2pa", "a.opus.c2pa"]
    states = [getattr(read_manifest(tmp_path / name), "state", None) for name in (*names, "a.flac")]
    assert states == ["Valid", "Valid", None]
    # Written without a signature, a file has none; the other one keeps its own.
    write_audio(tmp_path / "a.ogg", WAV, RATE, STATEMENT)
    assert [getattr(read_manifest(tmp_path / name), "state", None) for name in names] == [None, "Valid"]
    assert not (tmp_path / "a.ogg.c2pa").exists()
    # Other programs leave the suffix out.
    (tmp_path / "a.opus.c2pa").rename(tmp_path / "a.c2pa")
    assert read_manifest(tmp_path / "a.opus") is None
    for name in ("a.ogg", "a.flac"):
        (tmp_path / name).unlink()
    found = read_manifest(tmp_path / "a.opus")
    assert found is not None and found.state == "Valid"


def _streamed(path: Path, wav: Any, *rest: Any) -> int:
    return write_stream(path, rest[0], iter(np.array_split(wav, 5)), *rest[1:])


def test_a_file_that_states_nothing_and_a_stream_on_standard_output_are_not_signed(
    signer: Signer, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="states nothing cannot be signed"):
        write_audio(tmp_path / "a.wav", WAV, RATE, False, Signing(signer))
    with pytest.raises(ValueError, match="standard output cannot be signed"):
        write_stream(Path("-"), RATE, [WAV], STATEMENT, Signing(signer))
    assert not list(tmp_path.iterdir())


def _other_keys() -> dict[str, Callable[[], Any]]:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    return {
        "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
        "Ed25519": ed25519.Ed25519PrivateKey.generate,
        "RSA": lambda: rsa.generate_private_key(65537, 2048),
    }


@pytest.mark.parametrize("kind", ["P-384", "P-521", "Ed25519", "RSA"])
def test_other_kinds_of_keys_sign(kind: str, tmp_path: Path) -> None:
    papers = issued(tmp_path, key=_other_keys()[kind]())
    found = read_manifest(signed(Signer(papers.key, papers.cert), tmp_path, "wav"), papers.root)
    assert found is not None and found.state == "Trusted"


def _weak(folder: Path) -> Issued:
    from cryptography.hazmat.primitives.asymmetric import ec

    return issued(folder, key=ec.generate_private_key(ec.SECP256K1()))


def _locked(folder: Path) -> Issued:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    papers = issued(folder)
    key = load_pem_private_key(papers.key.read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    papers.key.write_bytes(locked)
    return papers


def _exchanged(folder: Path) -> Issued:
    mine, hers = issued(folder), issued(folder, "hers")
    return Issued(hers.key, mine.cert, mine.root)


def _swapped(folder: Path) -> Issued:
    papers = issued(folder)
    return Issued(papers.cert, papers.key, papers.root)


def _binary(folder: Path) -> Issued:
    papers = issued(folder)
    papers.cert.write_bytes(b"\x30\x82\xff\xfe")
    return papers


REFUSED: dict[str, tuple[Callable[[Path], Issued], str]] = {
    "another usage": (
        lambda folder: issued(folder, usage="1.3.6.1.5.5.7.3.1"),
        r"C2PA refuses the certificate .*1\.3\.6\.1\.5\.5\.7\.3\.1; get one with emailProtection",
    ),
    "no usage": (lambda folder: issued(folder, usage=None), "usages are none; get one with emailProtection"),
    "expired": (lambda folder: issued(folder, days=-2), r"cert\.pem: the certificate expired on \d{4}-\d\d-\d\d"),
    "another key": (_exchanged, r"key\.pem does not match the first certificate of .*cert\.pem"),
    "the wrong curve": (_weak, r"cannot sign with this kind of key; use an EC key"),
    "a password": (_locked, "has a password: write it without one"),
    "exchanged files": (_swapped, "holds no certificate that can be read"),
    "no text": (_binary, r"cert\.pem is not a PEM file"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_sign_is_said_in_one_line(kind: str, tmp_path: Path) -> None:
    make, words = REFUSED[kind]
    papers = make(tmp_path)
    with pytest.raises(C2paError, match=words) as refused:
        Signer(papers.key, papers.cert)
    assert "\n" not in str(refused.value) and "BEGIN" not in str(refused.value).replace("BEGIN CERTIFICATE", "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"key": None}, "--sign-key and --sign-cert belong together"),
        ({"certificates": None}, "belong together"),
        ({"marks": False}, "--no-mark leaves out what --sign-key signs"),
        ({"training": "no"}, "--sign-training no: use one of allowed"),
        ({"key": "gone.pem"}, r"--sign-key: the file gone\.pem does not exist"),
        ({"key": None, "certificates": None, "training": "allowed"}, "need --sign-key"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], words: str, papers: Issued) -> None:
    with pytest.raises(C2paError, match=words):
        signing_of(**({"key": papers.key, "certificates": papers.cert} | options))
    assert signing_of(None, None) is None


def test_without_the_extra_the_message_says_how_to_get_it(
    papers: Issued, signer: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = signed(signer, tmp_path, "wav")
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(C2paError, match=r"pip install 'voxmill\[provenance\]'"):
        signing_of(papers.key, papers.cert)
    with pytest.raises(C2paError, match=r"pip install 'voxmill\[provenance\]'"):
        read_manifest(path)
    # That there is one is known without it.
    assert find_manifest(path) is not None and read_marks(path) == STATEMENT


def test_a_time_stamp_is_asked_for_only_if_a_service_is_named(papers: Issued) -> None:
    # Nobody listens at port 9 of this machine: who asks there fails.
    with pytest.raises(C2paError, match=r"http://127\.0\.0\.1:9/: no time stamp comes from there"):
        Signer(papers.key, papers.cert, "http://127.0.0.1:9/")


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["wav", "mp3", "m4a"]), st.data())
def test_a_damaged_file_gives_a_result_or_one_line(name: str, data: st.DataObject) -> None:
    whole = _SIGNED.setdefault(name, _signed_bytes(name))
    cut = data.draw(st.integers(0, len(whole)))
    places = data.draw(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=6))
    broken = bytearray(whole)
    for place, value in places:
        broken[place] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech"
        path.write_bytes(broken[:cut])
        if (found := find_manifest(path)) is not None:
            try:
                read_claims(found[0])
                read_manifest(path)
            except C2paError as error:
                assert "\n" not in str(error)


_SIGNED: dict[str, bytes] = {}


def _signed_bytes(name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        papers = issued(Path(folder))
        return Signer(papers.key, papers.cert).sign(encoded(name, WAV[:2400], whole=True), STATEMENT).data


def test_a_chunk_that_claims_more_than_there_is_ends_the_search(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF\xff\xff\xff\xffWAVE" + struct.pack("<4sI", b"data", 0xFFFFFFF0) + bytes(100))
    assert find_manifest(path) is None
    box = io.BytesIO()
    box.write(b"\0\0\0\x10ftypM4A \0\0\0\0" + b"\0\0\0\1uuid" + b"\xff" * 8)
    path.write_bytes(box.getvalue())
    assert find_manifest(path) is None and read_marks(path) is None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.none() | st.integers(0, 60), st.binary(max_size=40))
@example(4, None, bytes(20))
@example(1, 8, bytes(30))
def test_a_box_of_any_size_is_read(size: int, large: int | None, rest: bytes) -> None:
    box = struct.pack(">I4s", size, b"uuid") + (b"" if large is None else struct.pack(">Q", large)) + rest
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.m4a"
        path.write_bytes(struct.pack(">I4s4sI4s", 20, b"ftyp", b"M4A ", 0, b"M4A ") + box)
        assert find_manifest(path) is None and read_marks(path) is None
