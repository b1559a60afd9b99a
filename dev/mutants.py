"""Mutation test: plant small faults in a private copy of the tree and count those that a test notices.

    make mutants                                       all modules of dev/mutants.toml
    make mutants SEED=7 MODULES="voxcpm/model/flow.py"       some of them, other faults

dev/mutants.toml names the modules, the test files of each and the mutants that change nothing that can be told. The test
files run once with a tracer (test -> lines). Each mutant then runs the tests that reach its line, the module's own file and
the quickest first, in a process forked from one that has imported the large libraries. It is noticed when a test fails or
the processor time for a hang is used up. Exit status: 0 within the bounds, 1 below them, 2 if nothing could be measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from mutant_runs import Copies, Job, output_of
from mutators import Mutant, mutants_of, sample

LEAST_IN_ALL, LEAST_EACH = 92.0, 80.0
"""Percent of the mutants that tests must notice."""


@dataclass
class Module:
    """One module under test and what became of its mutants."""

    path: str
    tests: list[str]
    equivalent: int = 0
    noticed: int = 0
    hung: int = 0
    survivors: list[str] = field(default_factory=list)

    @property
    def score(self) -> float:
        """Percent of the mutants that were noticed, without the equivalent ones."""
        counted = self.noticed + len(self.survivors)
        return 100.0 * self.noticed / counted if counted else 100.0


def reached(copies: Copies, modules: list[Module], workers: int) -> dict[str, dict[str, Any]]:
    """Run the modules' test files with a tracer: test -> {seconds, lines: {module: [line]}}. Tests that fail are left out."""
    files = list(dict.fromkeys(test for module in modules for test in module.tests))
    found: dict[str, dict[str, Any]] = {}

    def done(code: int | None, copy: Path) -> None:
        result = json.loads((copy / "result.json").read_text())
        for name in dict.fromkeys(result["failed"]):
            print(f"left out, fails without a fault: {name}", flush=True)
            result["tests"].pop(name, None)
        found.update(result["tests"])

    traced = tuple(module.path for module in modules)
    parts = [files[number::workers] for number in range(workers)]
    copies.run([Job(part, done, traced=traced) for part in parts if part])
    return found


def order(module: Module, mutant: Mutant, tests: dict[str, dict[str, Any]]) -> list[str]:
    """Tests that reach the mutant's line: the module's own file first, the quickest first in each.

    What runs at import is reached by every test that reaches the module, and by all tests of the module's own file."""
    own = module.tests[0]
    chosen = []
    for name, test in tests.items():
        lines = test["lines"].get(module.path, [])
        if mutant.lines is None:
            hit = bool(lines) or name.startswith(f"{own}::")
        else:
            hit = any(mutant.lines[0] <= line <= mutant.lines[1] for line in lines)
        if hit:
            chosen.append((not name.startswith(f"{own}::"), test["seconds"], name))
    return [name for *_, name in sorted(chosen)]


def jobs_of(
    module: Module, root: Path, tests: dict[str, dict[str, Any]], args: argparse.Namespace, known: list[dict[str, str]]
) -> list[Job]:
    """The runs of one module's sampled mutants; each adds its outcome to `module`."""
    source = (root / module.path).read_bytes()
    jobs = []
    for mutant in sample(mutants_of(source), args.most, f"{args.seed}:{module.path}"):
        if is_equivalent(mutant, known):
            module.equivalent += 1
            continue
        wanted = order(module, mutant, tests)
        if not wanted:
            module.survivors.append(f"{module.path}:{mutant.line} {mutant} (no test reaches it)")
            continue

        def done(code: int | None, copy: Path, mutant: Mutant = mutant, wanted: list[str] = wanted) -> None:
            (copy / module.path).write_bytes(source)
            if code == 0:
                ran = len(json.loads((copy / "result.json").read_text())["tests"])
                module.survivors.append(f"{module.path}:{mutant.line} {mutant} ({ran} of {len(wanted)} tests ran)")
                print(f"  survived  {module.survivors[-1]}", flush=True)
                return
            module.noticed += 1
            module.hung += code is None
            if args.verbose:
                output = output_of(copy).strip().splitlines()
                print(f"  noticed   {module.path}:{mutant.line} {mutant}: {output[-1] if output else code}", flush=True)

        files = list(dict.fromkeys(name.split("::")[0] for name in wanted))
        # A process uses time for its imports before the first test: that must not be taken for a hang.
        hang = args.hang + 5 * min(args.seconds, sum(tests[name]["seconds"] for name in wanted))
        plant = (module.path, mutant.applied(source))
        jobs.append(Job(files, done, wanted, args.seconds, hang, plant=plant))
    return jobs


def is_equivalent(mutant: Mutant, known: list[dict[str, str]]) -> bool:
    """Return True if the list has it: same line of code, same change."""
    return any(
        entry["code"] == mutant.code and entry["was"] == mutant.was and entry["now"] == mutant.now for entry in known
    )


def table(modules: list[Module]) -> str:
    """The scores as a Markdown table, and every survivor by name."""
    total = Module("all", [])
    for module in modules:
        total.equivalent += module.equivalent
        total.noticed += module.noticed
        total.hung += module.hung
        total.survivors += module.survivors
    rows = ["| module | mutants | equivalent | noticed | survived | score |", "|---|---|---|---|---|---|"]
    for module in (*modules, total):
        survived = len(module.survivors)
        count = module.equivalent + module.noticed + survived
        hung = f" ({module.hung} hung)" if module.hung else ""
        rows.append(
            f"| {module.path} | {count} | {module.equivalent} | {module.noticed}{hung} | {survived} | {module.score:.0f} % |"
        )
    return "\n".join([*rows, "", *(f"- {survivor}" for survivor in total.survivors)])


def within_bounds(modules: list[Module]) -> bool:
    """Return True if the bounds are held."""
    total = Module(
        "all", [], noticed=sum(m.noticed for m in modules), survivors=[s for m in modules for s in m.survivors]
    )
    return total.score >= LEAST_IN_ALL and all(module.score >= LEAST_EACH for module in modules)


def main() -> int:
    """Run the mutation test that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", nargs="*", help="Modules to test. Default: all of the list.")
    parser.add_argument("--seed", default="1", help="Seed of the sample. Default: 1.")
    parser.add_argument("--most", type=int, default=25, help="Mutants per module. Default: 25.")
    parser.add_argument("--seconds", type=float, default=10, help="Processor seconds of tests per mutant. Default: 10.")
    parser.add_argument(
        "--hang",
        type=float,
        default=20,
        help="Processor seconds beyond five times those of its tests that make a hang. Default: 20.",
    )
    parser.add_argument("--workers", type=int, default=2, help="Processes at once. Default: 2.")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent, help=argparse.SUPPRESS)
    parser.add_argument("--verbose", action="store_true", help="Say what noticed each mutant.")
    args = parser.parse_args()
    listed = tomllib.loads((args.root / "dev" / "mutants.toml").read_text(encoding="utf-8"))
    unknown = [path for path in args.modules or () if path not in listed["modules"]]
    if unknown:
        print(f"mutants: {', '.join(unknown)} not in dev/mutants.toml; modules: {', '.join(listed['modules'])}")
        return 2
    modules = [Module(path, tests) for path, tests in listed["modules"].items() if path in (args.modules or [path])]
    gone = [path for module in modules for path in (module.path, *module.tests) if not (args.root / path).is_file()]
    if gone:
        print(f"mutants: not there, mend dev/mutants.toml: {', '.join(gone)}")
        return 2
    for name in listed.get("preload", ()):
        import_module(name)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as folder:
        copies = Copies(args.root, Path(folder), args.workers)
        tests = reached(copies, modules, args.workers)
        print(f"{len(tests)} tests ran in {time.monotonic() - began:.0f} s; seed {args.seed}", flush=True)
        jobs = []
        for module in modules:
            known = [entry for entry in listed.get("equivalent", ()) if entry["module"] == module.path]
            jobs += jobs_of(module, args.root, tests, args, known)
        copies.run(jobs)
    print(f"\n{table(modules)}\n\n{time.monotonic() - began:.0f} s")
    return 0 if within_bounds(modules) else 1


if __name__ == "__main__":
    sys.exit(main())
