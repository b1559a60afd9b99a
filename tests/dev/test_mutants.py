"""The mutation run counts what a test notices and names what none does."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
sys.path.append(str(REPOSITORY / "dev"))

from mutators import mutants_of, sample  # noqa: E402

TOY = """
def at_most(value, most):
    if value > most:
        return most
    return value


def down(value):
    while value:
        value -= 2
    return value


def unseen(value):
    return value * 2
"""
TOY_TEST = """
from toy import at_most, down


def test_them():
    assert at_most(3, 2) == 2 and at_most(1.5, 2) == 1.5
    assert down(2) == 0
"""
LIST = """
[modules]
"toy.py" = ["test_toy.py"]
[[equivalent]]
module = "toy.py"
code = "if value > most:"
was = "value > most"
now = "(value >= most)"
why = "the same of two that are equal"
"""


def test_a_run_over_a_toy_names_the_survivors_and_leaves_the_checkout_alone(tmp_path: Path) -> None:
    root = tmp_path / "toy"
    (root / "dev").mkdir(parents=True)
    (root / "toy.py").write_text(TOY)
    (root / "test_toy.py").write_text(TOY_TEST)
    (root / "dev" / "mutants.toml").write_text(LIST)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    command: list[str | Path] = [sys.executable, REPOSITORY / "dev" / "mutants.py", "--root", root, "--hang", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stdout + done.stderr
    assert (root / "toy.py").read_text() == TOY
    survivors = [line for line in done.stdout.splitlines() if line.startswith("- ")]
    assert survivors and all("toy.py:15" in line and "no test reaches it" in line for line in survivors), done.stdout
    row = re.search(r"\| toy.py \| (\d+) \| 1 \| (\d+) \((\d+) hung\) \| (\d+) \|", done.stdout)
    assert row, done.stdout
    mutants, noticed, hung, survived = map(int, row.groups())
    assert mutants == 1 + noticed + survived and survived == len(survivors) and 0 < hung < noticed


def test_every_listed_file_is_there_and_every_equivalent_mutant_has_a_reason() -> None:
    listed = tomllib.loads((REPOSITORY / "dev" / "mutants.toml").read_text(encoding="utf-8"))
    for module, tests in listed["modules"].items():
        assert all((REPOSITORY / path).is_file() for path in (module, *tests)), module
    for entry in listed["equivalent"]:
        assert set(entry) == {"module", "code", "was", "now", "why"} and entry["module"] in listed["modules"], entry
        assert entry["why"].strip(), entry


def test_mutants_parse_differ_and_are_drawn_by_seed() -> None:
    source = (REPOSITORY / "pipeline" / "voice" / "references.py").read_bytes()
    found = mutants_of(source)
    changed = {mutant.applied(source) for mutant in found}
    assert source not in changed and len(changed) > 60
    for text in changed:
        compile(text, "references.py", "exec")
    drawn = [sample(found, 25, seed) for seed in ("1", "1", "2")]
    assert drawn[0] == drawn[1] != drawn[2] and len(drawn[0]) == 25


def test_each_kind_of_fault_is_planted() -> None:
    source = b"""
LIMIT: int = 3

def f(items, low):
    total = 0
    for item in items:
        if item is None:
            continue
        total += min(item, LIMIT)
    return [-x for x in items if x and x < low or total << 1]
"""
    kinds = {mutant.kind for mutant in mutants_of(source)}
    assert kinds == {
        "arithmetic",
        "and/or",
        "break/continue",
        "comparison",
        "constant",
        "deleted",
        "dropped filter",
        "dropped operand",
        "min/max",
        "negated if",
        "return None",
        "unary",
    }
