"""The seed of a test run: printed, and enough to repeat all random choices."""

from __future__ import annotations

import json
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


def test_two_turns_run_every_long_file_once_and_take_about_as_long(tmp_path: Path) -> None:
    table: dict[str, float] = json.loads((TESTS / "durations.json").read_text(encoding="utf-8"))
    names = {name: taken for name, taken in table.items() if name.startswith("test_")}
    for name in names:
        (tmp_path / name).write_text("def test(): ...\n", encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    turns = []
    for seed in ("6", "7"):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "--collect-only",
                "--turn",
                "-p",
                "conftest",
                "-p",
                "no:cacheprovider",
            ],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(TESTS), "VOXMILL_TEST_SEED": seed},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        turns.append({line.split("::")[0] for line in done.stdout.splitlines() if "::" in line})
        assert all(name in done.stdout for name in names.keys() - turns[-1]), "those that are left out are listed"
    assert turns[0] | turns[1] == set(names)
    both = turns[0] & turns[1]
    assert max(names[name] for name in both) <= 20 < min(names[name] for name in turns[0] ^ turns[1])
    first, second = (sum(names[name] for name in turn - both) for turn in turns)
    assert max(first, second) < 1.2 * min(first, second)
