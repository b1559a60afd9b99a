"""`voxmill detect`: marked files, unmarked files, and one line for what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fakes.watermark_speech import babble
from typer.testing import CliRunner, Result

from voxcpm.inference.write_audio import write_audio
from voxcpm.provenance.source import Source
from voxcpm.provenance.watermark_hook import marked_chunks, marked_pairs, marked_samples
from voxcpm.watermark import SpeechMark, new_key
from voxcpm.watermark.registry import known_names, registry_file, remember
from voxmill import cli

RATE = 24_000


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOXMILL_MARKS", str(tmp_path / "marks.jsonl"))
    key = new_key("house")
    (tmp_path / "house.key").write_text(key.secret.hex(), encoding="ascii")
    (tmp_path / "house.key").chmod(0o600)
    speech = babble(4, RATE)
    write_audio(Path("marked.flac"), marked_samples(speech, RATE, SpeechMark(0xBEEF)), RATE)
    write_audio(Path("plain.wav"), speech, RATE, mark=False)
    write_audio(Path("house.wav"), marked_samples(speech, RATE, SpeechMark(7, [key])), RATE, mark=False)
    Path("broken.wav").write_bytes(b"RIFFnonsense")
    return tmp_path


def detect(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["detect", *arguments], catch_exceptions=False)


def test_a_marked_file_is_status_zero_and_names_the_checkpoint(place: Path) -> None:
    remember("beef" + "0" * 12, "step_0000800")
    done = detect("marked.flac")
    assert done.exit_code == 0
    assert "marked with the public key" in done.stdout and "beef" in done.stdout and "step_0000800" in done.stdout
    assert "it states that it is synthetic" in done.stdout


def test_an_unmarked_file_is_status_one(place: Path) -> None:
    done = detect("marked.flac", "plain.wav", "--json")
    assert done.exit_code == 1 and "this does not show that it is a recording" in done.stderr
    marked, plain = json.loads(done.stdout)
    assert marked["watermarks"][0]["payload"] == "beef" and marked["watermarks"][0]["checkpoints"] == []
    assert plain["watermarks"][0]["marked"] is False and plain["statement"] is None


def test_a_private_key_is_looked_for_beside_the_public_one(place: Path) -> None:
    assert detect("house.wav").exit_code == 1
    done = detect("house.wav", "--key", "house.key")
    assert done.exit_code == 0 and "marked with the house key" in done.stdout
    secret = (place / "house.key").read_text(encoding="ascii")
    assert secret not in done.stdout


def test_files_that_cannot_be_read_are_status_two_and_do_not_stop_the_others(place: Path) -> None:
    done = detect("broken.wav", "gone.wav", "marked.flac")
    assert done.exit_code == 2 and "no audio file at gone.wav" in done.stdout and "beef" in done.stdout
    assert "broken.wav cannot be decoded" in done.stdout


def test_channels_are_mixed_and_a_thorough_search_finds_another_speed(place: Path) -> None:
    stereo = np.stack([soundfile.read("marked.flac")[0]] * 2, axis=1)
    soundfile.write("fast.wav", stereo, round(RATE * 1.04))
    assert detect("fast.wav").exit_code == 1
    done = detect("fast.wav", "--thorough")
    assert done.exit_code == 0 and "speed 1.04" in done.stdout


def test_the_registry_survives_damage_and_is_written_once(place: Path) -> None:
    for _ in range(3):
        remember("beef" + "1" * 12, "one")
    with registry_file().open("a", encoding="utf-8") as file:
        file.write('{"checkpoint": 7}\nnonsense\n{"checkpoint": "beef2", "name": "two"}\n')
    assert known_names(0xBEEF) == ["one", "two"] and known_names(1) == []
    assert registry_file().read_text(encoding="utf-8").count('"one"') == 1


def test_a_source_marks_the_same_request_alike_and_others_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    source, speech = Source(tmp_path), babble(2, RATE)
    first, again, other = (marked_samples(speech, RATE, source.watermark(seed, "hello")) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    unmarked = Source(tmp_path, keys=())
    assert np.array_equal(marked_samples(speech, RATE, unmarked.watermark(1)), speech)
    assert unmarked.mark(3) and Source(tmp_path, states=False).mark(3) is False


def test_chunks_and_pairs_give_the_samples_of_the_whole(tmp_path: Path) -> None:
    speech, mark = babble(2, RATE), SpeechMark(1, seed=3)
    whole = marked_samples(speech, RATE, mark)
    parts = [speech[:7000], speech[7000:7001], speech[7001:]]
    assert np.array_equal(np.concatenate(list(marked_chunks(parts, RATE, mark))), whole)
    pairs = list(marked_pairs(zip("abc", parts, strict=True), RATE, mark))
    assert [name for name, _ in pairs] == ["a", "b", "c", "c"]
    assert np.array_equal(np.concatenate([samples for _, samples in pairs]), whole)
