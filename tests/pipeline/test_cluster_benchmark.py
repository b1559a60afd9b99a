"""The benchmark of a simulated cluster runs with the loop of `prepare` as it is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
from fakes.benchmark_scripts import load

from catalogs.corpus.reader import Corpus
from pipeline import prepare


@pytest.fixture(scope="module")
def benchmark() -> Any:
    return load("cluster")


def test_planned_sessions_are_run_and_committed(
    ray_node: None, benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(prepare), "make_engine", vars(prepare)["make_engine"])  # The benchmark puts its own there.
    asked = argparse.Namespace(
        session_s=600.0, unit_s=1200.0, clip_bytes=50, segment_s=60.0, in_flight=8, profile=False
    )
    got = benchmark.simulate(asked, 1e6, 3, tmp_path / "corpus")
    segments = Corpus(tmp_path / "corpus").index.column("segment_id").to_pylist()
    assert len(segments) == len(set(segments)) == 3 * 10
    assert got["wall"] > 0 and 0 < got["thread"] <= got["process"]
