"""The table of sample kinds: a new kind is one entry, and runs that were begun before it go on as they were."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import trainer.sample_kinds
from trainer.sample_kinds import SAMPLE_KINDS

LAST = '"""Add a new kind at the end'
NEW = '    SampleKind(layout="designed_continuation", description=True, continuation=True),\n'
SCRIPT = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("trainer.sample_kinds", sys.argv[1])
sys.modules["trainer.sample_kinds"] = kinds = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kinds)
from trainer.config import Phase
from trainer.data.candidates import Candidate
from trainer.data.mixture import Mixture, data_key
candidates = [
    Candidate(f"{n:02}", "en de".split()[n % 2], "text", 1.0 + n, "calm" if n % 3 else None, (("01", 2.0),) if n % 4 else ())
    for n in range(20)
] + [Candidate(f"made{n}", "en", "text", 3.0, "calm", (("01", 2.0),), None, "02") for n in range(4)]
phase = Phase(steps=10, decoupled=0.5, **json.loads(sys.argv[2]))
stream = Mixture(candidates, phase, "only", 1)
choices = [(c.layout, c.candidate.segment_id, c.reference, c.seed) for c in map(stream.choice, range(200))]
print(json.dumps([data_key(1, {"only": phase}, {"only": candidates}), choices]))
"""


def choices(table: Path, **phase: Any) -> tuple[str, list[list[Any]]]:
    """The data key and the first choices of a phase, in a process whose table of kinds is the one in a file."""
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(table), json.dumps(phase)], capture_output=True, text=True, check=True
    )
    key, found = json.loads(process.stdout)
    return key, found


def test_a_new_kind_is_one_entry_and_leaves_begun_runs_as_they_were(tmp_path: Path) -> None:
    table = Path(trainer.sample_kinds.__file__)
    longer = tmp_path / "sample_kinds.py"
    source = table.read_text(encoding="utf-8")
    longer.write_text(source.replace(f")\n{LAST}", f"{NEW})\n{LAST}"), encoding="utf-8")
    before = choices(table)
    assert {layout for layout, *_ in before[1]} == {
        kind.layout for kind in SAMPLE_KINDS if kind.weight or kind.decoupled
    }
    assert any(segment.startswith("made") for _, segment, *_ in before[1])
    assert choices(longer) == before
    key, found = choices(longer, layouts={"designed_continuation": 2.0})
    assert key != before[0]
    drawn = {segment for layout, segment, *_ in found if layout == "designed_continuation"}
    assert drawn == {f"{n:02}" for n in range(20) if n % 3 and 1.0 + n >= 2.0}


def test_the_place_of_a_kind_stays() -> None:
    """The order of the draws of a kind follows from it, in runs that were begun."""
    assert [(kind.layout, kind.decoupled) for kind in SAMPLE_KINDS[:7]] == [
        ("basic", False), ("design", False), ("reference", False), ("controllable", False), ("continuation", False),
        ("reference_continuation", False), ("controllable", True),
    ]  # fmt: skip
