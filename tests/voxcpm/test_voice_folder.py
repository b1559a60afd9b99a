"""The folder of stored voices: files, names, many writers, damage, and its export for vLLM-Omni."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("multipart", reason="the extra serve is not installed")
pytest.importorskip("msgspec", reason="the extra serve is not installed")
pytest.importorskip("lameenc", reason="the extra serve is not installed")


from voxcpm.inference.prompt_cache import load_prompt_cache
from voxcpm.server.voices.export import MANIFEST, export_vllm_omni
from voxcpm.server.voices.files import read_tensors
from voxcpm.server.voices.store import Voice, VoiceFolder, clean_name
from voxcpm.weights.atomic import write_file

REFERENCE = {"ref_audio_feat": np.ones((4, 2, 3), np.float32)}
BOTH = {**REFERENCE, "audio_feat": np.full((5, 2, 3), 2.0, np.float32)}


@pytest.mark.parametrize(
    "name", ["", "a" * 65, "../a", "a/b", ".a", "-a", "a\0", "a b", "ä", "a\nb", "a\\b", "%2e%2e", "\u212a"]
)
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        clean_name(name)


def test_names_are_compared_in_lower_case(tmp_path: Path) -> None:
    folder = VoiceFolder(tmp_path)
    folder.add(Voice(clean_name(" Anna.B-1_c "), "uploaded"), REFERENCE)
    found = folder.find("ANNA.b-1_C")
    assert found is not None and found == folder.find(found.id) and folder.find("anna") is None


def test_a_voice_is_read_back(tmp_path: Path) -> None:
    one = Voice("anna", "uploaded", consent="I, Anna, agree.", ref_text="Wörter", seconds=0.64)
    VoiceFolder(tmp_path).add(one, BOTH)
    (found,) = VoiceFolder(tmp_path).all()
    assert found == one
    tensors = VoiceFolder(tmp_path).latents(found)
    assert all(np.array_equal(tensors[name], BOTH[name]) for name in BOTH)
    # The file is a prompt cache, which `voxmill speak --voice` takes.
    cache = load_prompt_cache(tmp_path / f"{one.id}.safetensors")
    assert cache["mode"] == "ref_continuation" and cache["prompt_text"] == "Wörter"
    assert sorted(path.suffix for path in tmp_path.glob("voice_*")) == [".json", ".safetensors"]


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    folder = VoiceFolder(tmp_path)
    folder.add(Voice("anna", "uploaded"), REFERENCE)
    with pytest.raises(FileExistsError, match="delete it first"):
        folder.add(Voice("anna", "uploaded"), REFERENCE)
    folder.add(Voice("anna", "designed"), REFERENCE, replace=True)
    assert [voice.kind for voice in folder.all()] == ["designed"] and len(list(tmp_path.glob("*.safetensors"))) == 1
    assert folder.delete("ANNA") and folder.all() == [] and not list(tmp_path.glob("voice_*"))
    assert folder.delete("anna") is None


def test_many_writers_and_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxcpm.server.voices.store.MOST_VOICES", 6)
    refused: list[Exception] = []

    def add(number: int) -> None:
        try:
            # A folder object each, as several servers have.
            VoiceFolder(tmp_path).add(Voice(f"v{number % 10}", "uploaded"), REFERENCE)
        except (FileExistsError, ValueError) as error:
            refused.append(error)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = [voice.name for voice in VoiceFolder(tmp_path).all()]
    assert len(names) == len(set(names)) == 6 and len(refused) == 14


def test_another_process_is_noticed(tmp_path: Path) -> None:
    here, there = VoiceFolder(tmp_path), VoiceFolder(tmp_path)
    assert here.all() == []
    there.add(Voice("anna", "uploaded"), REFERENCE)
    assert [voice.name for voice in here.all()] == ["anna"]
    there.delete("anna")
    assert here.all() == []


def test_what_is_no_voice_is_left_out(tmp_path: Path) -> None:
    folder = VoiceFolder(tmp_path)
    folder.add(Voice("anna", "uploaded"), REFERENCE)
    name = "voice_" + "0" * 24
    for file, text in {
        "notes.json": '{"name": "notes"}',
        f"{name}.json": '{"name": "../../etc", "kind": "uploaded"}',
        f"{name[:-1]}1.json": '{"name": "x", "kind": "other"}',
        f"{name[:-1]}2.json": '{"name": "x", "kind": "uploaded", "seed": "no"}',
        f"{name[:-1]}3.json": "{",
        f"{name[:-1]}4.json": "[" * 100_000,
        f"{name[:-1]}5.json": "[]",
    }.items():
        (tmp_path / file).write_text(text)
    (tmp_path / f"{name[:-1]}6.json").symlink_to(tmp_path / "notes.json")
    assert [voice.name for voice in VoiceFolder(tmp_path).all()] == ["anna"]


def test_damaged_latents_are_refused(tmp_path: Path) -> None:
    folder = VoiceFolder(tmp_path)
    voice = Voice("anna", "uploaded")
    bad = {"ref_audio_feat": np.full((4, 2, 3), np.nan, np.float32)}
    for tensors in (bad, {"other": REFERENCE["ref_audio_feat"]}, {"ref_audio_feat": np.ones((4, 2), np.float32)}):
        folder.add(voice, tensors, replace=True)
        with pytest.raises(ValueError, match="delete the voice"):
            VoiceFolder(tmp_path).latents(voice)
    (tmp_path / f"{voice.id}.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ValueError, match="delete the voice") as refused:
        VoiceFolder(tmp_path).latents(voice)
    assert str(tmp_path) not in str(refused.value)


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        write_file(tmp_path / "a", b"x")
    assert list(tmp_path.iterdir()) == []


@given(st.binary(max_size=200))
@settings(max_examples=50)
def test_any_bytes_are_no_voice(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(data)
    with pytest.raises(ValueError):
        read_tensors(path)


# -- export ----------------------------------------------------------------------------------------------------------------


def test_export_for_vllm_omni(tmp_path: Path) -> None:
    folder = VoiceFolder(tmp_path / "voices")
    folder.add(Voice("anna", "uploaded", ref_text="What I said."), BOTH)
    folder.add(Voice("bob", "designed"), REFERENCE)
    assert [voice.name for voice in export_vllm_omni(folder, tmp_path / "out")] == ["anna", "bob"]
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert (manifest["model_type"], manifest["schema_version"]) == ("voxcpm2", 1)
    # What vLLM-Omni asks of a profile: a file below the folder, a mode, and the tensors that the mode needs.
    needs = {"reference": {"ref_audio_feat"}, "ref_continuation": {"ref_audio_feat", "audio_feat"}}
    for entry in manifest["voices"].values():
        file = (tmp_path / "out" / entry["file"]).resolve()
        assert file.is_relative_to(tmp_path / "out") and set(read_tensors(file)) == needs[entry["mode"]]
    assert manifest["voices"]["anna"]["prompt_text"] == "What I said."
    # Again with one of them; but not into a folder of something else, and not an unknown voice.
    assert [voice.name for voice in export_vllm_omni(folder, tmp_path / "out", ["bob"])] == ["bob"]
    assert set(json.loads((tmp_path / "out" / MANIFEST).read_text())["voices"]) == {"bob"}
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 1
    with pytest.raises(ValueError, match="another folder"):
        export_vllm_omni(folder, tmp_path / "voices")
    with pytest.raises(ValueError, match="no voice 'eve'"):
        export_vllm_omni(folder, tmp_path / "out2", ["eve"])
