"""`python -m voxcpm`: what the official package's answers cannot show (see test_upstream_calls for the rest)."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from fakes.certificates import NEEDED, issued
from voxcpm_fixtures import GoldenSet

from voxcpm import VoxCPM, cli
from voxcpm.provenance.c2pa.read import read_manifest
from voxcpm.provenance.files import read_marks
from voxcpm.provenance.source import checkpoint_digest
from voxcpm.weights.lora import LoRAConfig, adapters

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def place(golden_set: GoldenSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("verbs")
    for name in ("ref", "prompt"):
        soundfile.write(folder / f"{name}.wav", golden_set["generation"][f"{name}_wav_16k"].numpy(), 16000)
    return folder


@pytest.fixture
def voxcpm(
    golden_set: GoldenSet, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Run the command line in the folder: (exit status, standard output, standard error)."""
    monkeypatch.chdir(place)

    def run(*arguments: str, model: bool = True) -> tuple[int, str, str]:
        checkpoint = ("--model-path", str(golden_set.checkpoint), "--no-denoiser", "--inference-timesteps", "2")
        status = 0
        try:
            cli.main([*arguments, *(checkpoint if model else ())])
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speech of five patches: this model does not end before it must, and would be asked four times for as much as it may say.

    The command line has no options for that; tests/voxcpm/test_api.py has lengths and retries.
    """
    honest = VoxCPM.generate
    monkeypatch.setattr(VoxCPM, "generate", functools.partialmethod(honest, max_len=5, retry_badcase=False))


def test_it_runs_as_a_module(golden_set: GoldenSet, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "voxcpm", "design", "-t", "Hi", "-o", str(tmp_path / "hi.wav"), "--seed", "3"]
    done = subprocess.run(
        [*command, "--model-path", str(golden_set.checkpoint), "--inference-timesteps", "2"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert soundfile.info(tmp_path / "hi.wav").samplerate == 48000


def test_no_console_script_hides_the_official_one() -> None:
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "voxcpm" not in project["scripts"]


@pytest.mark.usefixtures("brief")
def test_a_seed_repeats_and_control_is_put_in_front(voxcpm: Any, place: Path) -> None:
    for name, text, more in (
        ("a", "Hello", ("--control", "calm")),
        ("b", "Hello", ("--control", " calm ")),
        ("c", "(calm)Hello", ()),
        ("d", "Hello", ()),
    ):
        assert voxcpm("design", "-t", text, "-o", f"{name}.wav", "--seed", "5", *more)[0] == 0
    a, b, c, d = (soundfile.read(place / f"{name}.wav")[0] for name in "abcd")
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, c)
    assert len(a) != len(d) or not np.array_equal(a, d)


@pytest.mark.usefixtures("brief")
def test_a_file_states_that_it_is_synthetic(voxcpm: Any, place: Path, golden_set: GoldenSet) -> None:
    assert voxcpm("design", "-t", "Hello", "-o", "stated.flac", "--seed", "5")[0] == 0
    stated = read_marks(place / "stated.flac")
    assert stated is not None and (stated.model, stated.seed) == (golden_set.checkpoint.name, 5)
    assert stated.checkpoint == checkpoint_digest(golden_set.checkpoint)
    assert voxcpm("design", "-t", "Hello", "-o", "plain.flac", "--seed", "5", "--no-mark")[0] == 0
    assert read_marks(place / "plain.flac") is None


@NEEDED
@pytest.mark.usefixtures("brief")
def test_a_file_is_signed(voxcpm: Any, place: Path, tmp_path: Path) -> None:
    papers = issued(tmp_path)
    key, cert = ("--sign-key", str(papers.key)), ("--sign-cert", str(papers.cert))
    assert voxcpm("design", "-t", "Hello", "-o", "signed.opus", *key, *cert)[0] == 0
    found = read_manifest(place / "signed.opus", papers.root)
    assert found is not None and (found.state, found.embedded, found.training) == ("Trusted", False, "notAllowed")
    status, _, said = voxcpm("design", "-t", "Hello", "-o", "unsigned.flac", *key)
    assert status == 1 and "--sign-key and --sign-cert belong together" in said
    assert not (place / "unsigned.flac").exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), {}),
        (("--lora-alpha", "4"), {"alpha": 4.0}),
        (("--lora-disable-lm",), {"enable_lm": False}),
        (("--lora-disable-dit",), {"enable_dit": False}),
        (("--lora-enable-proj",), {}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_lora_config_json_decides_what_no_flag_says(
    flags: tuple[str, ...], expected: dict[str, Any], golden_set: GoldenSet, place: Path
) -> None:
    about = json.loads((golden_set.folder / "lora" / "lora_config.json").read_text(encoding="utf-8"))
    config = {**LoRAConfig.from_dict(about).to_dict(), **expected}
    words = ["clone", "-t", "Hi", "-o", "x.wav", "--model-path", str(golden_set.checkpoint), "--no-denoiser"]
    options = cli._build_parser().parse_args([*words, "--lora-path", str(golden_set.folder / "lora"), *flags])
    adapted = adapters(cli.load_model(options).tts_model.backbone)
    assert {module.scale for module in adapted.values()} == {config["alpha"] / config["r"]}
    assert any(name.startswith("base_lm.") for name in adapted) == config["enable_lm"]
    assert any(name.startswith("feat_decoder.") for name in adapted) == config["enable_dit"]
    # The V1 class of the official command line has no place for this one.
    assert ("fusion_concat_proj" in adapted) == config["enable_proj"]
    stored = json.dumps(sorted(adapted))
    assert "lora" not in stored and adapted


def test_lora_without_its_config_takes_the_rank_of_the_weights(
    golden_set: GoldenSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(golden_set.folder / "lora" / "lora_weights.safetensors", tmp_path)
    words = ["clone", "-t", "Hi", "-o", "x.wav", "--model-path", str(golden_set.checkpoint), "--no-denoiser"]
    options = cli._build_parser().parse_args([*words, "--lora-path", str(tmp_path)])
    adapted = adapters(cli.load_model(options).tts_model.backbone)
    assert {module.scale for module in adapted.values()} == {16 / 4} and "fusion_concat_proj" in adapted
    assert "alpha 16 is assumed" in capsys.readouterr().err


def test_a_wrong_rank_is_told(voxcpm: Any, golden_set: GoldenSet, place: Path) -> None:
    lora = str(golden_set.folder / "lora")
    status, _, error = voxcpm(
        "clone", "-t", "Hi", "-o", "x.wav", "-ra", "ref.wav", "--lora-path", lora, "--lora-r", "8"
    )
    assert status == 1 and "rank 8" in error and len(error.splitlines()) == 1 and not (place / "x.wav").exists()


@pytest.mark.usefixtures("brief")
def test_a_line_that_cannot_be_spoken_does_not_stop_the_others(voxcpm: Any, place: Path) -> None:
    (place / "texts.txt").write_text("Hi\n" + "Hello world " * 300 + "\nYou\n", encoding="utf-8")
    status, out, error = voxcpm("batch", "-i", "texts.txt", "-od", "outs")
    assert status == 1 and "line 2" in error and "2 of 3" in out
    assert sorted(path.name for path in (place / "outs").iterdir()) == ["output_001.wav", "output_003.wav"]


@pytest.mark.usefixtures("brief")
def test_timestamps_without_their_library(voxcpm: Any, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stable_whisper", None)
    status, _, error = voxcpm("design", "-t", "Hi", "-o", "lenient.wav", "--timestamps")
    assert status == 0 and (place / "lenient.wav").is_file()
    assert [line for line in error.splitlines() if "pip install stable-ts" in line] == error.splitlines()
    status, _, error = voxcpm("design", "-t", "Hi", "-o", "strict.wav", "--timestamps", "--timestamp-strict")
    assert status == 1 and "pip install stable-ts" in error and len(error.splitlines()) == 1
    assert not (place / "strict.wav").exists()


@pytest.mark.usefixtures("brief")
def test_timestamps_are_written(voxcpm: Any, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Whisper:
        def transcribe(self, audio: str) -> Any:
            return types.SimpleNamespace(language="en")

        def align(self, audio: str, text: str, language: str) -> Any:
            assert Path(audio).is_file() and (text, language) == ("Hi you", "en")
            words = [types.SimpleNamespace(word=" Hi", start=0.0, end=0.4)]
            return types.SimpleNamespace(segments=[types.SimpleNamespace(text="Hi", start=0.0, end=0.5, words=words)])

    library = types.SimpleNamespace(load_model=lambda name, device: Whisper())
    monkeypatch.setitem(sys.modules, "stable_whisper", library)
    assert (
        voxcpm(
            "design", "-t", "Hi you", "--control", "calm", "-o", "t.wav", "--timestamps", "--timestamp-level", "char"
        )[0]
        == 0
    )
    told = json.loads((place / "t.timestamps.json").read_text(encoding="utf-8"))
    assert told["items"] == [
        {"text": "H", "start": 0.0, "end": 0.2, "level": "char"},
        {"text": "i", "start": 0.2, "end": 0.4, "level": "char"},
    ]
    about = {"sample_rate": 48000, "backend": "stable-ts", "level": "char", "text": "Hi you", "warning": None}
    assert told.items() >= {"audio_path": "t.wav", "language": "en", **about}.items()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": "a"}, "'audio' is missing"),
        ({"audio": "ref.wav"}, "'text' is missing"),
        ({"audio": "nobody.wav", "text": "a"}, "audio nobody.wav not found"),
        ({"audio": "manifest.jsonl", "text": "a"}, "audio manifest.jsonl cannot be read"),
        ({"audio": "ref.wav", "text": "a", "dataset_id": "x"}, "dataset_id is 'x'"),
        ({"audio": "ref.wav", "text": "a", "is_prompt": 1}, "is_prompt is 1, not true or false"),
        ({"audio": 7, "text": "a"}, "audio is 7, not a path"),
        (["ref.wav", "a"], "not a JSON object"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_told(row: Any, words: str, voxcpm: Any, place: Path) -> None:
    good = {"audio": "ref.wav", "text": "Hello", "duration": 99.0}
    (place / "manifest.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(row) + "\n", encoding="utf-8")
    status, out, error = voxcpm("validate", "-m", "manifest.jsonl", model=False)
    assert status == 1 and f"line 2: {words}" in out and "1 of 2 lines" in out
    assert "warning: line 1: duration says 99 s" in out and "FAILED" in error
    status, _, error = voxcpm("validate", "-m", "manifest.jsonl", "--max-samples", "1", "-v", model=False)
    assert (status, error) == (0, "line 1: ok\n")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"audio": "ref.wav", "text": " "}, "Empty text"),
        ({"audio": "ref.wav", "text": "a", "ref_audio": "nobody.wav"}, "ref_audio file not found: nobody.wav"),
    ],
)
def test_the_official_trainer_goes_on_after_a_warning(row: Any, words: str, voxcpm: Any, place: Path) -> None:
    (place / "manifest.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    status, out, _ = voxcpm("validate", "-m", "manifest.jsonl", model=False)
    assert status == 0 and f"warning: line 1: {words}" in out and "0 with a reference" in out
