"""`speak --table` on the tiny golden checkpoint, which is loaded once: fixtures, and tables in every format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from pipeline.synthesis.table.folder import TABLE_FILE
from pipeline.synthesis.table.settings import load_speak_settings
from pipeline.synthesis.table.speak_table import SpeakTableSummary, speak_table
from voxcpm import VoxCPM

REPOSITORY = Path(__file__).resolve().parents[3]
QUICK = ("generate.steps=1", "generate.cfg=1", "generate.device=cpu", "retry=1", "engine.executor=inline", "unit=2")
Speak = Callable[..., SpeakTableSummary]


@pytest.fixture(scope="module", autouse=True)
def loaded_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """The golden checkpoint is loaded once."""
    found: dict[str, VoxCPM] = {}
    honest = VoxCPM.from_pretrained

    def load(model: str, **options: Any) -> VoxCPM:
        if model not in found:
            torch.set_num_threads(1)
            found[model] = honest(model, **options)
        return found[model]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(VoxCPM, "from_pretrained", load)
        yield


@pytest.fixture(scope="module")
def clips(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips, good and bad."""
    folder = tmp_path_factory.mktemp("clips")
    stored = load_file(golden / "generation.safetensors")
    for name in ("ref", "prompt"):
        soundfile.write(folder / f"{name}.wav", stored[f"{name}_wav_16k"].numpy(), 16_000, subtype="FLOAT")
    soundfile.write(folder / "silent.wav", np.zeros(16_000), 16_000)
    return folder


@pytest.fixture
def speak(golden: Path) -> Speak:
    def run(table: Path, out: Path, *overrides: str, **more: Any) -> SpeakTableSummary:
        settings = load_speak_settings(None, [*QUICK, *overrides])
        return speak_table(table, golden / "checkpoint", out, settings=settings, **more)

    return run


def rows_of(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(out / TABLE_FILE).to_pylist()
    return found


def files_of(out: Path) -> dict[str, bytes]:
    """Every file of a folder by its path, except for the lock."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def write_csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_rows(folder: Path, suffix: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        comma = "," if suffix == ".csv" else "\t"
        lines = [comma.join(rows[0]), *(comma.join(str(value) for value in row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
