"""The official package in its own environment, as a system: with our noise it says what `checkpoint:` says, up to rounding."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spoken_items import golden_items

from evaluation.errors import SpeakError
from evaluation.items import Item
from evaluation.runs.folder import create_run
from evaluation.runs.generate import generate
from evaluation.systems import open_system
from evaluation.systems.base import Ask, Speech, System
from evaluation.systems.official import WORKER

REPOSITORY = Path(__file__).resolve().parents[2]
UPSTREAM = Path(os.environ.get("VOXMILL_UPSTREAM_PYTHON", REPOSITORY / ".upstream-venv" / "bin" / "python"))
OPTIONS: dict[str, Any] = {"recipe": "both", "steps": 4, "max_seconds": 0.8, "device": "cpu"}
TOLERANCE = 2e-3
"""Of full scale. The golden codec, whose weights are random, makes large changes of small ones; measured: 3e-4."""

needs_upstream = pytest.mark.skipif(not UPSTREAM.is_file(), reason="no official package beside: make upstream-venv")


@pytest.fixture(scope="module")
def items(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    return golden_items(golden, tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def official(golden: Path) -> Iterator[System]:
    torch.set_num_threads(1)
    system = open_system(f"official:{UPSTREAM}:{golden / 'checkpoint'}", {**OPTIONS, "noise": "voxmill"})
    yield system
    system.close()


@pytest.fixture(scope="module")
def ours(golden: Path) -> System:
    return open_system(f"checkpoint:{golden / 'checkpoint'}", OPTIONS)


@needs_upstream
def test_both_packages_say_the_same(official: System, ours: System, items: list[Item], tmp_path: Path) -> None:
    whole = [items[0], Item("It was the worst", "en", reference=items[0].reference, reference_text="Of times")]
    runs = {}
    for name, system in (("ours", ours), ("official", official)):
        run = create_run(tmp_path / name, {"system": system.describe()}, [*whole, items[1]], [3, 4])
        assert generate(run, system) == {"too_long": 4, "error": 2}
        runs[name] = run
    theirs = runs["official"].generated.by_key()
    for key, row in runs["ours"].generated.by_key().items():
        other = theirs[key]
        for column in ("status", "error", "seconds", "attempts", "sample_rate"):
            assert row[column] == other[column], column
        if row["audio"]:
            one, two = (read(run.root / row["audio"]) for run in runs.values())
            assert np.abs(one - two).max() < TOLERANCE < np.abs(one).max()


def read(path: Path) -> np.ndarray:
    import soundfile

    samples: np.ndarray = soundfile.read(path, dtype="float32")[0]
    return samples


@needs_upstream
def test_its_version_and_settings_are_described(official: System) -> None:
    about = official.describe()
    assert official.name == "official voxcpm (both)" and official.seeded
    assert (about["kind"], about["version"], about["noise"], about["steps"]) == ("official", "2.0.3", "voxmill", 4)
    assert len(about["sha256 model.safetensors"]) == 64


@needs_upstream
def test_what_the_package_cannot_speak_is_an_error_of_that_text(official: System, items: list[Item]) -> None:
    long = Item("word " * 5000, "en", reference=items[0].reference, reference_text="x")
    failed, spoken = official.speak([Ask(long, 0), Ask(items[0], 0)])
    assert isinstance(failed, SpeakError) and "\n" not in str(failed)
    assert isinstance(spoken, Speech)


def test_the_worker_cannot_be_imported_from_our_environment() -> None:
    code = f"import sys; sys.path.insert(0, {str(WORKER.parent)!r}); import official_voxcpm"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "run this file with the Python of the official voxcpm package" in done.stderr
    assert not list(WORKER.parent.glob("__init__.py"))


def test_the_worker_refuses_our_package(golden: Path) -> None:
    """Our distribution is named voxmill: no distribution `voxcpm` is installed beside it."""
    words = ["-I", str(WORKER), "--checkpoint", str(golden / "checkpoint")]
    done = subprocess.run([sys.executable, *words], input="", capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert "has no package voxcpm; make one with: make upstream-venv" in done.stderr
