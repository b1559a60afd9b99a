"""Every way in which a system fails is a row with a status and a reason, and none stops the run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.items import Item
from evaluation.runs.folder import create_run
from evaluation.runs.generate import generate
from evaluation.runs.rows import STATUSES
from evaluation.systems import open_system
from evaluation.systems.base import System

WORKER = Path(__file__).resolve().parents[1] / "fakes" / "speech_worker.py"
EXPECTED = {
    "say this": ("ok", None),
    "error": ("error", "the text is too strange"),
    "crash": ("error", "was killed by SIGSEGV"),
    "empty": ("empty", "the system returned no audio"),
    "silent": ("silent", "the audio is silent"),
    "runaway": ("too_long", "did not stop by itself"),
    "hang": ("timeout", "no answer in 4 s"),
    "say that": ("ok", None),
}


@pytest.fixture
def system() -> Iterator[System]:
    opened = open_system("process:" + shlex.join([sys.executable, str(WORKER)]), {"timeout_s": 4})
    yield opened
    opened.close()


def test_each_failure_is_counted_and_named(system: System, tmp_path: Path) -> None:
    items = [Item(text, "en") for text in EXPECTED]
    run = create_run(tmp_path / "run", {"system": system.describe()}, items, [0])
    assert generate(run, system) == {"ok": 2, "error": 2, "empty": 1, "silent": 1, "too_long": 1, "timeout": 1}
    rows = {run.by_id[row["item_id"]].text: row for row in run.generated.rows()}
    for text, (status, reason) in EXPECTED.items():
        assert rows[text]["status"] == status
        assert (reason is None and rows[text]["error"] is None) or reason in rows[text]["error"]
    assert {status for status, _ in EXPECTED.values()} == set(STATUSES)
    # What was said is kept even where it counts as failed.
    kept = {text for text, row in rows.items() if row["audio"]}
    assert kept == {"say this", "say that", "silent", "runaway"} and rows["runaway"]["attempts"] == 3


def test_a_failed_take_is_not_asked_again(system: System, tmp_path: Path) -> None:
    items = [Item(text, "en") for text in ("error", "say this")]
    run = create_run(tmp_path / "run", {"system": system.describe()}, items, [0])
    first = generate(run, system)
    parts = sorted(run.generated.folder.iterdir())
    assert generate(run, system) == first and sorted(run.generated.folder.iterdir()) == parts
