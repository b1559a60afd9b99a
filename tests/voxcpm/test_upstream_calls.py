"""Every documented call gives what the official package gives: same types, shapes, kinds of errors, exit statuses, files.

tests/voxcpm/upstream_calls.json holds the answers of version 2.0.3, recorded with benchmarks/upstream_calls.py; what is
accepted to be different stands below with the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes.processes import PATIENCE_S

REPOSITORY = Path(__file__).resolve().parents[2]
RECORDED = json.loads((Path(__file__).parent / "upstream_calls.json").read_text(encoding="utf-8"))

#: Call -> (what ours gives, why it is not what the official package gives).
DIFFERENT: dict[str, tuple[Any, str]] = {
    "generate/normalize": (
        {"result": {"type": "numpy.ndarray", "dtype": "float32", "shape": [30720]}},
        "ours needs no wetext; the official package stops with ModuleNotFoundError where it is not installed",
    ),
    "generate/denoise": (
        {"error": "ValueError"},
        "denoise=True on a model loaded without a denoiser: the official package silently leaves the noise in",
    ),
    "generate/silent_reference": (
        {"error": "ValueError"},
        "silence holds no voice; the official package speaks with it",
    ),
    "generate/reference_of_50_ms": (
        {"error": "ValueError"},
        "nor do 50 ms; the official package pads them with silence",
    ),
    "generate/error/reference_is_no_audio": (
        {"error": "ValueError"},
        "AudioError, a ValueError that names the file; the official package lets its decoder's own exception through",
    ),
    "generate/text_beyond_the_context": (
        {"error": "ValueError"},
        "refused with what to do before anything is computed; the official package fails at a table's end (IndexError)",
    ),
    "lora/load_into_a_model_without_adapters": (
        {"result": {"type": "tuple", "items": [{"type": "int", "value": 56}, {"type": "int", "value": 0}]}},
        "lora_config.json says which layers to adapt; the official package wants a LoRAConfig at construction (RuntimeError)",
    ),
    "cli/design/normalize": (
        {"result": {"exit": 0, "files": {"out.wav": ["WAV", 48000, 1]}, "says_something": True}},
        "as generate/normalize",
    ),
    "cli/batch/error/empty_input": (
        {"result": {"exit": 1, "files": {}, "says_something": True}},
        "the official package fails without a word",
    ),
}
#: In continuation the official list of patches is led by up to three prompt patches and holds the last five only; ours holds
#: the new patches, all of them, so that they can be given to merge_prompt_cache.
STREAMED_PATCHES = "prompt_cache/generate_streaming"


@pytest.fixture(scope="module")
def ours(golden: Path) -> dict[str, Any]:
    """Our answers; the script runs in a separate process, as it does with the official package."""
    weights = (golden / "checkpoint" / "model.safetensors").read_bytes()
    if hashlib.sha256(weights).hexdigest() != RECORDED["checkpoint"]:
        pytest.skip(f"the official answers were recorded on another checkpoint than {golden}")
    done = subprocess.run(
        [sys.executable, "benchmarks/upstream_calls.py", "--golden", str(golden)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    about, *answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert about["package"] == "voxmill's voxcpm"
    return {answer.pop("call"): answer for answer in answers}


def test_the_official_package_was_asked_the_same(ours: dict[str, Any]) -> None:
    assert RECORDED["package"] == "voxcpm 2.0.3"
    assert ours.keys() == RECORDED["answers"].keys()


@pytest.mark.parametrize("call", [name for name in RECORDED["answers"] if name != STREAMED_PATCHES])
def test_a_call_gives_what_the_official_package_gives(call: str, ours: dict[str, Any]) -> None:
    own = {key: value for key, value in ours[call].items() if key != "without"}
    official = {key: value for key, value in RECORDED["answers"][call].items() if key != "without"}
    if call in DIFFERENT:
        expected, _ = DIFFERENT[call]
        assert expected != official, "no longer different: take it off the list"
        assert own == expected
    else:
        assert own == official


def test_patches_of_a_streamed_continuation(ours: dict[str, Any]) -> None:
    own, official = (answers[STREAMED_PATCHES]["result"]["items"] for answers in (ours, RECORDED["answers"]))
    patch = {"type": "torch.Tensor", "dtype": "torch.float32", "shape": [1, 1, 4, 64]}
    assert len(own) == len(official) == 4
    for number, (mine, theirs) in enumerate(zip(own, official, strict=True), 1):
        assert mine["items"][:2] == theirs["items"][:2]
        assert theirs["items"][2]["items"] == [patch] * min(3 + number, 5)
        assert mine["items"][2] == {"type": "list", "items": [patch] * number}


def test_what_the_official_package_could_not_do_is_marked() -> None:
    assert {name for name, answer in RECORDED["answers"].items() if "without" in answer} == {
        "generate/denoise",
        "generate/normalize",
        "cli/design/normalize",
    }
