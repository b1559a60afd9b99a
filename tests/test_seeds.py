"""The seed of a test run: printed, and enough to repeat all random choices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fakes.processes import PATIENCE_S

TESTS = Path(__file__).resolve().parent
CHOICES = """
from pathlib import Path
from hypothesis import given, settings, strategies as st

drawn = []

@settings(database=None, max_examples=20)
@given(st.integers())
def test_hypothesis(number):
    drawn.append(number)

def test_dice(dice):
    drawn.append(dice.random())
    Path(__file__).with_suffix(".drawn").write_text(repr(drawn))
"""


def run(folder: Path, seed: str) -> tuple[str, str]:
    """(what pytest prints, the random choices) of a run with tests/conftest.py."""
    file = folder / "test_choices.py"
    file.write_text(CHOICES, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "-p", "no:cacheprovider", str(file)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(TESTS), "VOXMILL_TEST_SEED": seed},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, file.with_suffix(".drawn").read_text(encoding="utf-8")


def test_the_seed_is_printed_and_repeats_every_random_choice(tmp_path: Path) -> None:
    said, drawn = run(tmp_path, "7")
    assert "VOXMILL_TEST_SEED=7" in said
    assert run(tmp_path, "7")[1] == drawn
    assert run(tmp_path, "8")[1] != drawn
