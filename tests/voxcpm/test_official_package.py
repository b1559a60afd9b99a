"""Code written for the official package runs on ours: its tests, its inference scripts and its web pages, unchanged.

They come from its source distribution, unpacked in pytest's cache at test time.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import soundfile
import torch
from fakes.processes import PATIENCE_S
from official_sources import official_sdist
from voxcpm_fixtures import GoldenSet

REPOSITORY = Path(__file__).resolve().parents[2]
DIFFERENCES = Path(__file__).parent / "official_differences.toml"
MOST_DIFFERENT = 0.15
"""Fraction of the official tests that may be listed as different."""


@pytest.fixture(scope="module")
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The official tests, scripts and pages beside a `src/voxcpm` that is ours."""
    sdist = official_sdist(request.config)
    folder = tmp_path_factory.mktemp("official")
    for name in ("tests", "scripts"):
        shutil.copytree(sdist / name, folder / name)
    for name in ("app.py", "lora_ft_webui.py"):
        shutil.copyfile(sdist / name, folder / name)
    (folder / "src").mkdir()
    (folder / "src" / "voxcpm").symlink_to(REPOSITORY / "voxcpm")
    return folder


@pytest.fixture(scope="module")
def outcomes(tree: Path) -> dict[str, str]:
    """What became of each official test on our package, in a process of its own."""
    told = tree / "outcomes.json"
    plugins = ["-p", "official_plugin", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:hypothesispytest"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, "--rootdir", str(tree), "tests"],
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(Path(__file__).parent)]),
            "OFFICIAL_OUTCOMES": str(told),
        },
    )
    assert told.is_file(), done.stdout[-2000:] + done.stderr[-2000:]
    found: dict[str, str] = json.loads(told.read_text(encoding="utf-8"))
    return found


def listed() -> dict[str, str]:
    table = tomllib.loads(DIFFERENCES.read_text(encoding="utf-8"))
    return {f"{file}::{test}": reason for file, tests in table.items() for test, reason in tests.items()}


def test_the_official_tests_pass_unless_a_reason_is_listed(outcomes: dict[str, str]) -> None:
    assert len(outcomes) == 42
    assert {test for test, outcome in outcomes.items() if outcome != "passed"} == listed().keys()
    assert len(listed()) <= MOST_DIFFERENT * len(outcomes)
    assert all(reason.strip() for reason in listed().values())


def run_script(path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    """Run a script as `python PATH ARGUMENTS`; return its globals. What it adds to sys.path is removed."""
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    monkeypatch.setattr(sys, "path", list(sys.path))
    return runpy.run_path(str(path), run_name="__main__")


def test_its_script_speaks_with_a_fine_tuned_checkpoint(
    tree: Path, golden_set: GoldenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ("--text", "Hello", "--max_len", "4", "--output", str(tmp_path / "out" / "ft.wav"))
    run_script(
        tree / "scripts" / "test_voxcpm_ft_infer.py", monkeypatch, "--ckpt_dir", str(golden_set.checkpoint), *wanted
    )
    wav, rate = soundfile.read(tmp_path / "out" / "ft.wav")
    assert rate == 48000 and len(wav) == 4 * 7680 and np.abs(wav).max() > 0


def test_its_script_switches_an_adapter_on_and_off(
    tree: Path, golden_set: GoldenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from voxcpm.inference import speak_options

    # The script gives no seed: without the same one each time its five files could not be compared.
    monkeypatch.setattr(speak_options, "materialize_generation_seed", lambda seed: 7)
    monkeypatch.setattr("voxcpm.inference.speaker.materialize_generation_seed", lambda seed: 7)
    wanted = ("--text", "Hello", "--max_len", "4", "--output", str(tmp_path / "lora.wav"))
    adapter = ("--lora_ckpt", str(golden_set.folder / "lora"), "--base_model", str(golden_set.checkpoint))
    run_script(tree / "scripts" / "test_voxcpm_lora_infer.py", monkeypatch, *adapter, *wanted)
    names = ("with_lora", "lora_reenabled", "lora_reloaded", "lora_disabled", "lora_reset")
    on, again, reloaded, off, unloaded = (soundfile.read(tmp_path / f"lora_{name}.wav")[0] for name in names)
    np.testing.assert_array_equal(on, again)
    np.testing.assert_array_equal(on, reloaded)
    np.testing.assert_array_equal(off, unloaded)
    assert not np.array_equal(on, off)


def test_its_script_checks_the_dtypes(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VOXCPM_MPS_DTYPE", raising=False)
    with pytest.raises(SystemExit) as stopped:
        run_script(tree / "scripts" / "test_pick_runtime_dtype.py", monkeypatch)
    assert stopped.value.code == 0


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """A gradio that keeps what is wired to its buttons, and a funasr that always hears "Hello"."""
    gradio, funasr = MagicMock(), ModuleType("funasr")
    funasr.AutoModel = MagicMock()  # type: ignore[attr-defined]
    funasr.AutoModel.return_value.generate.return_value = [{"text": "<|en|>Hello"}]
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    monkeypatch.setitem(sys.modules, "funasr", funasr)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return gradio


@pytest.fixture
def clip(golden_set: GoldenSet, tmp_path: Path) -> str:
    path = tmp_path / "ref.wav"
    soundfile.write(path, golden_set["generation"]["ref_wav_16k"].numpy(), 16000)
    return str(path)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speech of at most four patches: the tiny model does not end by itself."""
    from voxcpm.engine.request import GenerationRequest

    monkeypatch.setattr(GenerationRequest, "most_patches", property(lambda request: 4))


@pytest.mark.usefixtures("brief")
def test_its_page_speaks_in_all_three_modes(
    tree: Path, golden_set: GoldenSet, stand_ins: MagicMock, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # the page sets it
    page = runpy.run_path(str(tree / "app.py"))
    demo = page["VoxCPMDemo"](model_id=str(golden_set.checkpoint))
    page["create_demo_interface"](demo)
    generate = stand_ins.Button.return_value.click.call_args.kwargs["fn"]
    heard = demo.prompt_wav_recognition(clip)
    assert heard == "Hello"
    for control, reference, continues, words in (
        ("calm (old) man", None, False, ""),
        ("calm", clip, False, ""),
        ("", clip, True, heard),
    ):
        rate, wav = generate("Hi there", control, reference, continues, words, 2.0, True, False, 2)
        assert rate == 48000 and wav.dtype == np.float32 and wav.shape == (4 * 7680,)


@pytest.mark.usefixtures("brief", "stand_ins")
def test_its_fine_tuning_page_swaps_adapters(
    tree: Path, golden_set: GoldenSet, clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(golden_set.folder / "lora", tmp_path / "lora" / "step_1")
    page = runpy.run_path(str(tree / "lora_ft_webui.py"))
    assert page["scan_lora_checkpoints"]() == ["step_1"]
    speak, base = page["run_inference"], str(golden_set.checkpoint)
    found = []
    for adapter in ("None", "step_1", "None"):
        # The model starts with adapters of rank 32; step_1 has rank 4, so that the page loads the model again.
        audio, said = speak("Hi", clip, "", adapter, 2.0, 2, 7, base)
        assert said == "Generation Success" and audio[0] == 48000
        found.append(torch.from_numpy(audio[1]))
    plain, adapted, off = found
    assert torch.equal(plain, off) and not torch.equal(plain, adapted)
