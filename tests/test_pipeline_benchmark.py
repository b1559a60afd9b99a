"""The pipeline's benchmark fails where one of its bounds is missed, and says which."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.benchmark_scripts import load


@pytest.fixture(scope="module")
def benchmark() -> Any:
    return load("pipeline")


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
