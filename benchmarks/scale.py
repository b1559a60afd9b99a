"""What a corpus of a million hours costs: synthetic corpora with real records and index rows, and the time of each operation.

    python benchmarks/scale.py /tmp/scale --corpus small,million,records --json OUT --write docs/scale.md

Makes the corpora in the folder where they are missing (`--make`: nothing else), then runs each operation in a fresh process on a
linked copy, and prints a JSON line and a row of a Markdown table for each: wall and processor seconds, peak memory. An operation
that takes longer than `--timeout` seconds is stopped, and the table says so. `--only connect,counts` measures these alone; `--make`
only makes the corpora. Exits with 1 if a bound is missed.

small: 100 k segments in 2,000 units. million: 1 M segments in 20,000 units. records: 228,000 units of 9 h with five segments each.
See docs/scale.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from inference import _replace_section, machine  # noqa: E402
from scale_parts.corpus import make_corpus  # noqa: E402
from scale_parts.kinds import KINDS  # noqa: E402
from scale_parts.measure import measure  # noqa: E402
from scale_parts.operations import OPERATIONS  # noqa: E402
from scale_parts.table import misses, read_lines, table, title  # noqa: E402

BEFORE = ROOT / "benchmarks" / "scale_parts" / "before.jsonl"
"""Measurements of the code before anything was compacted."""


def main() -> None:
    """Make corpora and measure them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds the corpora, each in a folder of its kind's name")
    parser.add_argument("--corpus", default="small", help="kinds, with commas: small, million, records")
    parser.add_argument("--only", default="", help=f"operations, with commas: {', '.join(OPERATIONS)}")
    parser.add_argument("--seed", type=int, default=1, help="of the corpora that are made")
    parser.add_argument("--jobs", type=int, default=1, help="processes that make a corpus")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one operation")
    parser.add_argument("--json", type=Path, help="file that the JSON lines are appended to")
    parser.add_argument("--before", type=Path, default=BEFORE, help="JSON lines of an earlier run, shown beside")
    parser.add_argument("--write", type=Path, help="page whose sections <!-- scale-KIND --> get the tables")
    parser.add_argument("--make", action="store_true", help="make the corpora and stop")
    asked = parser.parse_args()
    names = [name for name in asked.only.split(",") if name] or list(OPERATIONS)
    kinds = asked.corpus.split(",")
    for name in (*(name for name in names if name not in OPERATIONS), *(kind for kind in kinds if kind not in KINDS)):
        parser.error(f"nothing is called {name}")
    before, missed = read_lines(asked.before), []
    for kind in kinds:
        root = asked.folder / kind
        done = asked.folder / f"{kind}.made"
        if not done.is_file():
            make_corpus(root, KINDS[kind], asked.seed, asked.jobs)
            done.write_text(f"{asked.seed}\n")
        if not asked.make:
            found = measure(root, KINDS[kind], names, asked.timeout, asked.json, before)
            missed += [line for one in found for line in misses(one)]
            if asked.write:
                about = f"{title(KINDS[kind])}. {os.cpu_count()} cores, {machine()}."
                _replace_section(asked.write, f"scale-{kind}", f"{about}\n\n{table(found, before)}")
    for line in missed:
        print(f"missed: {line}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
