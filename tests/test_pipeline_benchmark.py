"""The pipeline's benchmark fails where one of its bounds is missed, and says which."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def benchmark() -> Any:
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location("benchmark_of_the_pipeline", ROOT / "benchmarks" / "pipeline.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = path


@pytest.mark.parametrize(
    ("share", "over_stages", "ratio", "missed"),
    [
        (0.88, 1.13, 1.86, []),
        (0.88, 1.13, None, []),
        (0.84, 1.13, 1.86, ["0.84 of the cores"]),
        (0.86, 1.16, 1.86, ["1.16 times the stages'"]),
        (0.8, 1.25, 1.2, ["0.80 of", "1.25 times", "1.20 times as fast"]),
    ],
)
def test_each_bound_is_enforced(
    benchmark: Any, share: float, over_stages: float, ratio: float | None, missed: list[str]
) -> None:
    said = benchmark.missed_bounds(share, over_stages, ratio)
    assert len(said) == len(missed) and all(line.startswith(words) for line, words in zip(said, missed, strict=True))
