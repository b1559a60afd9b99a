"""How often the gate fails on noise, and whether it finds planted faults, on the panel of 60 sentences.

    python benchmarks/quality/gate_noise.py MODEL OUT [--voices FOLDER] [--takes 11] [--parts seeds,rounding,faults] [--write]

*Seeds*: the model speaks the panel with eleven seeds. Words, voices and failed takes of each two runs are held against each
other, as of two models that differ in nothing else. The 55 pairs are not independent: each run is in ten of them. *Rounding*:
it speaks with one seed eleven times, each time with another number of texts at once, which changes the rounding. Takes are
compared as of two builds of the code. *Faults*: two seeds, with a fault that the description of the run does not show. Finished
takes in OUT are kept: after an interruption run the same command to resume.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.quality.tables import table, write_between
from evaluation.gate import GateResult, gate
from evaluation.items import Item
from evaluation.lists.own import read_panel
from evaluation.repeat import repeat
from evaluation.results.rules import Rule
from evaluation.run import rescore, run_settings
from evaluation.runs.folder import Run, create_run
from evaluation.runs.generate import generate
from evaluation.systems import open_system
from evaluation.systems.base import Ask, Speech, System
from evaluation.systems.checkpoint import Checkpoint

STEPS = 10
TOGETHER = 8
"""Texts at once of a run that scores words."""
PARTS = ("rounding", "faults", "seeds")
HALF = "half the steps"
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
    parser.add_argument("--parts", default=",".join(PARTS), help="what is measured; default: all three")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/benchmarks.md")
    arguments = parser.parse_args(given)
    parts = arguments.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--parts: {', '.join(sorted(unknown))} is none of {', '.join(PARTS)}")
    items = read_panel(arguments.voices)
    speak = Speaker(arguments.model, items, arguments.out, "reference" if arguments.voices else "plain")
    numbers = range(arguments.takes)
    made: list[str] = []
    if "rounding" in parts:
        rounded = [speak(f"batch-{number + 1}", batch=number + 1) for number in numbers]
        made += [_noise("rounding", rounded, [Rule("takes.failed")]), _equal(rounded)]
    if "faults" in parts:
        right = speak("two-seeds", seeds=(1, 2))
        faulty = {
            fault: speak(fault.replace(" ", "-"), (1, 2), steps=STEPS // 2 if fault == HALF else STEPS, change=change)
            for fault, change in _changes(items).items()
        }
        made.append(_found(faulty, right))
    if "seeds" in parts:
        # All are asked for seed 0: the gate pairs takes by item and seed.
        seeds = [speak(f"drawn-{number}", change=partial(_drawn, number)) for number in numbers]
        for one in seeds:
            print(f"scoring {one.name}", flush=True)
            rescore(one, ("quick",))
        made.append(_noise("seeds", seeds, None))
    text = "\n\n".join(made)
    print(text)
    if arguments.write:
        write_between(MARK, TITLE, text)


class Speaker:
    """Makes runs of one checkpoint that all describe themselves as the unaltered one."""

    def __init__(self, model: Path, items: Sequence[Item], out: Path, recipe: str) -> None:
        self._model, self._items, self._out = model, items, out
        self._options: dict[str, Any] = {"recipe": recipe, "steps": STEPS, "retry": False}
        self._honest = open_system(f"checkpoint:{model}", self._options)
        assert isinstance(self._honest, Checkpoint)
        self._shown = self._honest.describe()

    def __call__(
        self,
        name: str,
        seeds: Sequence[int] = (0,),
        batch: int = TOGETHER,
        steps: int = STEPS,
        change: Change = lambda ask: ask,
    ) -> Run:
        """Return a run, made as far as it is missing."""
        print(name, flush=True)
        system = open_system(f"checkpoint:{self._model}", {**self._options, "batch": batch, "steps": steps})
        assert isinstance(self._honest, Checkpoint) and isinstance(system, Checkpoint)
        system.__dict__["model"] = self._honest.model  # One load serves all.
        altered = Altered(system, self._shown, batch, change)
        made = create_run(self._out / name, run_settings(altered, name), self._items, seeds)
        generate(made, altered)
        return made


def _drawn(seed: int, ask: Ask) -> Ask:
    return Ask(ask.item, seed)


def _changes(items: Sequence[Item]) -> dict[str, Change]:
    """Return what each fault does to a request. Half the steps change no request."""
    found: dict[str, Change] = {
        "the next seed": lambda ask: Ask(ask.item, ask.seed + 1),
        "one seed for all": lambda ask: Ask(ask.item, 1),
        HALF: lambda ask: ask,
    }
    if len({item.reference for item in items}) > 1:
        following = {item.id: other.reference for item, other in zip(items, [*items[1:], items[0]], strict=True)}
        found["another reference"] = lambda ask: Ask(replace(ask.item, reference=following[ask.item.id]), ask.seed)
    return found


def _noise(part: str, runs: Sequence[Run], rules: Sequence[Rule] | None) -> str:
    """Return a table of the outcomes of `rules` (None: all) over pairs of runs."""
    outcomes: Counter[tuple[str, str]] = Counter()
    for one, other in combinations(runs, 2):
        for outcome in gate(one, other, rules).outcomes:
            # Takes of two seeds are not to be the same.
            if part != "seeds" or outcome.value != "takes.same":
                outcomes[outcome.title, outcome.kind] += 1
    names = sorted({name for _, name in outcomes} | {"pass", "fail"})
    rows = [[part, title, *(outcomes[title, name] for name in names)] for title in sorted({one for one, _ in outcomes})]
    return table(["pairs of runs that differ in", "rule", *names], rows)


def _equal(rounded: Sequence[Run]) -> str:
    """Say how many takes differ by rounding. Raises SystemExit if none does: then nothing was compared."""
    found = [repeat(one, rounded[0]) for one in rounded[1:]]
    pairs, equal = sum(one.pairs for one in found), sum(one.equal for one in found)
    if equal == pairs:
        raise SystemExit("all takes are equal to the last bit: the rounding was not changed")
    largest = max(one.distance for one in found)
    return (
        f"{pairs - equal} of {pairs} takes differ from those of one text at once in their bytes, by {largest:.3f} dB on average"
        f" at most; takes of two texts differ by {found[0].seeds:.1f} dB."
    )


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
