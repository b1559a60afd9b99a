"""A plugin for the pytest process that runs the official package's tests on ours: see test_official_package.py.

The tests load `src/voxcpm/...` beside them by path, or import `voxcpm` unless it is loaded. Ours is in both places.
"""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import pytest

# They would put an empty package in its place, to leave out what it imports.
for name in ("voxcpm", "voxcpm.training"):
    importlib.import_module(name)

_outcomes: dict[str, str] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the outcome of a test; an error before or after it counts too."""
    if report.when == "call" or report.outcome != "passed":
        _outcomes[report.nodeid] = report.outcome


def pytest_sessionfinish() -> None:
    """Write the outcomes as JSON to the file that the environment names."""
    Path(os.environ["OFFICIAL_OUTCOMES"]).write_text(json.dumps(_outcomes), encoding="utf-8")
