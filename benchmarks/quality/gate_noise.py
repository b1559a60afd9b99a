"""How often the gate fails on noise, and whether it finds planted faults, on the panel of 60 sentences.

    python benchmarks/quality/gate_noise.py MODEL OUT [--voices FOLDER] [--takes 11] [--write]

*Seeds*: the model speaks the panel with eleven seeds. Words, voices and failed takes of each two runs are held against each
other, as of two models that differ in nothing else. *Rounding*: it speaks with one seed eleven times, each time with another
number of texts at once, which changes the rounding. Takes are compared as of two builds of the code. *Faults*: the same with a
fault that the description of the run does not show. Finished takes in OUT are kept: after an interruption run the same command
to resume.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.quality.tables import table, write_between
from evaluation.gate import GateResult, gate
from evaluation.items import Item
from evaluation.lists.own import read_panel
from evaluation.results.rules import Rule
from evaluation.run import rescore, run_settings
from evaluation.runs.folder import Run, create_run
from evaluation.runs.generate import generate
from evaluation.systems import open_system
from evaluation.systems.base import Ask, Speech, System

STEPS = 10
TOGETHER = 8
"""Texts at once of a run that scores words."""
FAULTS = ("the next seed", "the same seed for all", "another reference", "half the steps")
MARK, TITLE = "gate-noise", "Noise of the gate"

Change = Callable[[Ask], Ask]


class Altered:
    """A checkpoint that describes itself as `shown`, whatever it does."""

    def __init__(self, honest: System, shown: dict[str, Any], batch: int, change: Change = lambda ask: ask) -> None:
        self.name, self.seeded, self.batch = honest.name, True, batch
        self._honest, self._shown, self._change = honest, shown, change

    def describe(self) -> dict[str, Any]:
        """Return the description of the unaltered system."""
        return self._shown

    def speak(self, asks: Sequence[Ask]) -> list[Speech | Exception]:
        """Speak the changed requests."""
        return self._honest.speak([self._change(ask) for ask in asks])

    def close(self) -> None:
        """Nothing: the system belongs to the caller."""


def main(given: Sequence[str] | None = None) -> None:
    """Make the runs that are missing, compare them and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a checkpoint")
    parser.add_argument("out", type=Path, help="a folder for the runs")
    parser.add_argument("--voices", default="", help="a folder of reference clips; default: the panel has none")
    parser.add_argument("--takes", type=int, default=11, help="runs of each kind; 11 give 55 pairs (default)")
    parser.add_argument("--write", action="store_true", help="write the table into docs/benchmarks.md")
    arguments = parser.parse_args(given)
    items = read_panel(arguments.voices)
    options = {"recipe": "reference" if arguments.voices else "plain", "steps": STEPS, "retry": False}
    honest = open_system(f"checkpoint:{arguments.model}", options)
    halved = open_system(f"checkpoint:{arguments.model}", {**options, "steps": STEPS // 2})
    shown = honest.describe()

    def run(name: str, seed: int, batch: int, system: System = honest, change: Change = lambda ask: ask) -> Run:
        print(name, flush=True)
        altered = Altered(system, shown, batch, change)
        made = create_run(arguments.out / name, run_settings(altered, name), items, (seed,))
        generate(made, altered)
        return made

    numbers = range(arguments.takes)
    rounded = [run(f"batch-{number + 1}", 0, number + 1) for number in numbers]
    changes = dict(zip(FAULTS, _changes(items), strict=True))
    faulty = {
        fault: run(fault.replace(" ", "-"), 1, TOGETHER, halved if fault == "half the steps" else honest, change)
        for fault, change in changes.items()
        if arguments.voices or fault != "another reference"
    }
    right = run("seed-1", 1, TOGETHER)
    seeds = [run(f"seed-{number}", number, TOGETHER) for number in numbers]
    for one in seeds:
        print(f"scoring {one.name}", flush=True)
        rescore(one, ("quick",))
    text = "\n\n".join([_noise(seeds, rounded), _found(faulty, right)])
    print(text)
    if arguments.write:
        write_between(MARK, TITLE, text)


def _changes(items: Sequence[Item]) -> list[Change]:
    """Return what each fault does to a request, in the order of `FAULTS`. Half the steps change no request."""
    following = {item.id: other.reference for item, other in zip(items, [*items[1:], items[0]], strict=True)}
    return [
        lambda ask: Ask(ask.item, ask.seed + 1),
        lambda ask: Ask(ask.item, 0),
        lambda ask: Ask(replace(ask.item, reference=following[ask.item.id]), ask.seed),
        lambda ask: ask,
    ]


def _noise(seeds: Sequence[Run], rounded: Sequence[Run]) -> str:
    """Return a table of outcomes of all rules over pairs of runs."""
    outcomes: Counter[tuple[str, str, str]] = Counter()
    for kind, runs, rules in (("another seed", seeds, None), ("other rounding", rounded, [Rule("takes.failed")])):
        for one, other in combinations(runs, 2):
            result = gate(one, other, rules)
            for outcome in result.outcomes:
                if kind == "another seed" and outcome.value == "takes.same":
                    continue  # Takes of two seeds are not to be the same.
                outcomes[kind, outcome.title, outcome.kind] += 1
    kinds = sorted({(kind, title) for kind, title, _ in outcomes})
    names = ("pass", "not enough items", "fail")
    rows = [[kind, title, *(outcomes[kind, title, name] for name in names)] for kind, title in kinds]
    return table(["pairs of runs that differ in", "rule", *names], rows)


def _found(faulty: dict[str, Run], right: Run) -> str:
    """Return a table of the outcome of each planted fault."""
    rows = []
    for fault, run in faulty.items():
        result: GateResult = gate(run, right, [Rule("takes.failed")], [])
        same = next(outcome for outcome in result.outcomes if outcome.value == "takes.same")
        rows.append([fault, same.kind, f"{same.estimate:.0f} %", same.reason, result.exit_code])
    return table(["fault", "outcome", "takes as before", "distance", "exit status"], rows)


if __name__ == "__main__":
    main()
