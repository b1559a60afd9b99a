"""Signatures of models: what was changed is found, what cannot be trusted is refused, and memory stays small."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("cryptography", reason="the extra `provenance` is not installed")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from voxcpm.weights.signing.bundle import seal, unseal
from voxcpm.weights.signing.keys import PASSWORD, SignatureError, load_private_key, load_public_key, make_key_pair
from voxcpm.weights.signing.model import sign_model, verify_model
from voxcpm.weights.signing.statement import Statement, file_digests, read_statement

FILES = {
    "config.json": b"{}",
    "lineage.json": b'{"schema": 1}',
    "model.safetensors": bytes(range(256)) * 40,
    "tokenizer/vocab.txt": b"a\nb\n",
    "tokenizer-notes.txt": b"sorts before and after the folder",
    ".hidden": b"h",
    "größe.txt": b"7",
}
ALGORITHMS = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private key and its public key."""
    private = tmp_path_factory.mktemp("keys") / "key.pem"
    return private, make_key_pair(private)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def run(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more}
    words = [sys.executable, "-m", "voxmill", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, env=environment)


def payload_of(signature: Path) -> dict[str, Any]:
    bundle = json.loads(signature.read_text())
    found: dict[str, Any] = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    return found


def test_a_signed_model_is_whole_also_under_another_name(model: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    signed = sign_model(model, keys[0])
    assert (signed.files, signed.lineage, signed.model) == (len(FILES), True, "model")
    assert {one["name"] for one in payload_of(signed.signature)["predicate"]["resources"]} == set(FILES)
    found = verify_model(model.rename(tmp_path / "renamed"), keys[1])
    assert found.whole and found.files == len(FILES) and found.not_covered == ()


def test_what_changed_is_missing_or_was_added_is_named(model: Path, keys: tuple[Path, Path]) -> None:
    sign_model(model, keys[0])
    (model / "tokenizer" / "vocab.txt").write_bytes(b"a\nc\n")
    (model / "lineage.json").unlink()
    (model / "tokenizer" / "new").mkdir()
    (model / "tokenizer" / "new" / "code.py").write_bytes(b"print()")
    found = verify_model(model, keys[1])
    assert not found.whole
    assert (found.changed, found.missing) == (("tokenizer/vocab.txt",), ("lineage.json",))
    assert found.extra == ("tokenizer/new/code.py",)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10_239), bit=st.integers(0, 7))
def test_one_changed_bit_is_found(model: Path, keys: tuple[Path, Path], at: int, bit: int) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(FILES["model.safetensors"])
    sign_model(model, keys[0])
    data = bytearray(FILES["model.safetensors"])
    data[at] ^= 1 << bit
    weights.write_bytes(data)
    assert verify_model(model, keys[1]).changed == ("model.safetensors",)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["payload", "sig"]), at=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_a_signature_with_a_changed_byte_does_not_hold(
    keys: tuple[Path, Path], name: str, at: float, change: int
) -> None:
    public, payload = load_public_key(keys[1]), Statement("m", {"a": "00" * 32}).payload()
    bundle = json.loads(seal(payload, load_private_key(keys[0])))
    place = bundle["dsseEnvelope"] if name == "payload" else bundle["dsseEnvelope"]["signatures"][0]
    raw = bytearray(base64.b64decode(place[name]))
    raw[int(at * len(raw))] ^= change
    place[name] = base64.b64encode(raw).decode()
    with pytest.raises(SignatureError):
        unseal(json.dumps(bundle).encode(), public)


@settings(max_examples=40)
@given(
    digests=st.dictionaries(
        st.lists(st.text("ab-./é", min_size=1), min_size=1, max_size=3).map("/".join),
        st.binary(min_size=32, max_size=32),
    )
)
def test_a_statement_survives_its_json(digests: dict[str, bytes]) -> None:
    one = Statement("name", {name: digest.hex() for name, digest in digests.items()}, (".git",), True)
    assert read_statement(one.payload()) == one


@pytest.mark.parametrize("curve", ALGORITHMS)
def test_all_curves_of_the_format_sign(curve: str, model: Path, tmp_path: Path) -> None:
    private, public = write_keys(ec.generate_private_key(ALGORITHMS[curve]), tmp_path)
    sign_model(model, private, tmp_path / "s.sig")
    assert verify_model(model, public, tmp_path / "s.sig").whole


def write_keys(key: Any, folder: Path) -> tuple[Path, Path]:
    private, public = folder / "k.pem", folder / "p.pem"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_keys_that_cannot_be_used_are_refused_in_one_line(
    model: Path, keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = write_keys(ed25519.Ed25519PrivateKey.generate(), tmp_path)
    koblitz = tmp_path / "koblitz"
    koblitz.mkdir()
    other, _ = write_keys(ec.generate_private_key(ec.SECP256K1()), koblitz)
    (tmp_path / "no.pem").write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    monkeypatch.setenv(PASSWORD, "one")
    make_key_pair(tmp_path / "locked.pem")
    assert sign_model(model, tmp_path / "locked.pem").files == len(FILES)
    monkeypatch.setenv(PASSWORD, "another")
    for key, words in [
        (private, "no other keys"),
        (other, "no other keys"),
        (tmp_path / "no.pem", "not a private key"),
        (keys[1], "sign with the private one"),
        (tmp_path / "absent.pem", "voxmill sign --new-key"),
        (tmp_path / "locked.pem", "does not open it"),
    ]:
        with pytest.raises(SignatureError, match=words) as caught:
            sign_model(model, key)
        assert "\n" not in str(caught.value)
    monkeypatch.delenv(PASSWORD)
    with pytest.raises(SignatureError, match=PASSWORD):
        sign_model(model, tmp_path / "locked.pem")
    for key, words in [(public, "no other keys"), (keys[0], "is a private key"), (model / "config.json", "public key")]:
        with pytest.raises(SignatureError, match=words):
            verify_model(model, key)


def test_a_new_key_is_for_its_owner_only_and_replaces_nothing(tmp_path: Path) -> None:
    public = make_key_pair(tmp_path / "k.pem")
    assert public == tmp_path / "k.pub.pem" and stat.S_IMODE((tmp_path / "k.pem").stat().st_mode) == 0o600
    before = (tmp_path / "k.pem").read_bytes()
    with pytest.raises(SignatureError, match="exists"):
        make_key_pair(tmp_path / "k.pem")
    (tmp_path / "k.pem").unlink()
    with pytest.raises(SignatureError, match="exists"):
        make_key_pair(tmp_path / "k.pem")
    assert before and not (tmp_path / "k.pem").exists()


def resigned(model: Path, private: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Replace a signature by a valid one over a changed statement."""
    values = payload_of(model / "model.sig")
    change(values)
    (model / "model.sig").write_bytes(seal(json.dumps(values).encode(), load_private_key(private)))


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another predicate": (lambda v: v.update(predicateType="https://slsa.dev/provenance/v1"), "only https://model_sig"),
    "another method": (lambda v: v["predicate"]["serialization"].update(method="shards"), "another kind"),
    "another hash": (lambda v: v["predicate"]["serialization"].update(hash_type="blake3"), "another kind"),
    "a digest of another hash": (
        lambda v: v["predicate"]["resources"][0].update(algorithm="md5"),
        "other than SHA-256",
    ),
    "a file less": (lambda v: v["predicate"]["resources"].pop(), "do not fit together"),
    "two subjects": (lambda v: v["subject"].append(v["subject"][0]), "damaged"),
    "no predicate": (lambda v: v.pop("predicate"), "damaged"),
    "names that are lists": (lambda v: v["predicate"].update(resources=["a"]), "damaged"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_statement_of_another_kind_is_refused(kind: str, model: Path, keys: tuple[Path, Path]) -> None:
    sign_model(model, keys[0])
    change, words = CHANGES[kind]
    resigned(model, keys[0], change)
    with pytest.raises(SignatureError, match=words):
        verify_model(model, keys[1])


def test_a_signature_that_ignores_everything_or_names_outside_files_finds_nothing_whole(
    model: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    sign_model(model, keys[0])
    resigned(model, keys[0], lambda v: v["predicate"]["serialization"].update(ignore_paths=["."]))
    assert set(verify_model(model, keys[1]).missing) == set(FILES)
    (tmp_path / "secret").write_bytes(b"s")
    outside = Statement("m", {"../secret": "00" * 32})
    (model / "model.sig").write_bytes(seal(outside.payload(), load_private_key(keys[0])))
    found = verify_model(model, keys[1])
    assert found.missing == ("../secret",) and found.changed == ()
    (model / "model.sig").write_bytes(seal(Statement("m", {}).payload(), load_private_key(keys[0])))
    with pytest.raises(SignatureError, match="covers no file"):
        verify_model(model, keys[1])


def test_files_that_are_no_signature_are_refused(model: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match="no signature at"):
        verify_model(model, keys[1])
    sign_model(model, keys[0])
    bundle = json.loads((model / "model.sig").read_text())
    certificate = {**bundle, "verificationMaterial": {"x509CertificateChain": {}}}
    older = {**bundle, "mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.1"}
    other_type = {**bundle, "dsseEnvelope": {**bundle["dsseEnvelope"], "payloadType": "text/plain"}}
    none = {**bundle, "dsseEnvelope": {**bundle["dsseEnvelope"], "signatures": []}}
    for data, words in [
        (b"", "not a model signature"),
        (b"[" * 200_000, "not a model signature"),
        (b'{"mediaType": 3}', "not a model signature"),
        (json.dumps(certificate).encode(), "with a certificate"),
        (json.dumps(older).encode(), "only application"),
        (json.dumps(other_type).encode(), "no DSSE envelope"),
        (json.dumps(none).encode(), "damaged"),
    ]:
        (model / "model.sig").write_bytes(data)
        with pytest.raises(SignatureError, match=words):
            verify_model(model, keys[1])
    with (model / "model.sig").open("wb") as file:
        file.truncate(70_000_000)
    with pytest.raises(SignatureError, match="64 MB"):
        verify_model(model, keys[1])


def test_the_key_of_another_person_does_not_verify(model: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    sign_model(model, keys[0])
    other = make_key_pair(tmp_path / "other.pem")
    with pytest.raises(SignatureError, match="another key"):
        verify_model(model, other)
    # The hint is not what holds: without it, the signature itself is not of the other key.
    bundle = json.loads((model / "model.sig").read_text())
    bundle["verificationMaterial"]["publicKey"] = {}
    (model / "model.sig").write_text(json.dumps(bundle))
    assert verify_model(model, keys[1]).whole
    with pytest.raises(SignatureError, match="not of this key"):
        verify_model(model, other)


def test_links_and_devices_are_refused_and_git_is_left_out(
    model: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    (model / ".git").mkdir()
    (model / ".git" / "link").symlink_to("nowhere")
    sign_model(model, keys[0])
    (model / ".git" / "HEAD").write_bytes(b"changed")
    found = verify_model(model, keys[1])
    assert found.whole and found.not_covered == (".git",)
    for make in (
        lambda path: path.symlink_to(model / "config.json"),
        lambda path: path.symlink_to(tmp_path),
        lambda path: path.symlink_to("nowhere"),
        lambda path: os.mkfifo(path),
    ):
        make(model / "odd")
        for work in (lambda: sign_model(model, keys[0]), lambda: verify_model(model, keys[1])):
            with pytest.raises(SignatureError, match="odd is "):
                work()
        (model / "odd").unlink()
    # The model itself may be named by a link: `latest` is one.
    (tmp_path / "latest").symlink_to(model)
    assert sign_model(tmp_path / "latest", keys[0]).model == "model"


def test_what_is_at_the_place_of_a_signature_stays_unless_it_is_one(model: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(SignatureError, match="not a signature"):
        sign_model(model, keys[0], model / "config.json")
    assert (model / "config.json").read_bytes() == FILES["config.json"]
    sign_model(model, keys[0])
    (model / "config.json").write_bytes(b"[]")
    sign_model(model, keys[0])
    assert verify_model(model, keys[1]).whole
    shutil.copy(keys[0], model / "key.pem")
    with pytest.raises(SignatureError, match="move it out"):
        sign_model(model, model / "key.pem")


def test_a_large_file_is_read_piece_by_piece(tmp_path: Path) -> None:
    with (tmp_path / "weights").open("wb") as file:
        file.truncate(64_000_000)
    tracemalloc.start()
    try:
        digests = file_digests(tmp_path, ())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(digests) == 1 and peak < 1_000_000


def test_the_commands_sign_verify_and_name_what_differs(model: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    assert run("sign", "--new-key", key).returncode == 0
    key.chmod(0o644)
    signed = run("sign", model, "--key", key)
    assert signed.returncode == 0 and "7 files signed" in signed.stdout and "chmod 600" in signed.stdout
    (model / "config.json").write_bytes(b"[]")
    found = run("verify-model", model, "--public-key", tmp_path / "key.pub.pem", "--json")
    told = json.loads(found.stdout)
    assert found.returncode == 1 and told["changed"] == ["config.json"] and not told["whole"]
    assert "changed: config.json" in found.stderr
    refused = run("verify-model", model, "--public-key", key)
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1 and "is a private key" in refused.stderr
