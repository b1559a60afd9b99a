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
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from mutators import Mutant, mutants_of, sample

LEAST_IN_ALL, LEAST_EACH = 92.0, 80.0
"""Percent of the mutants that tests must notice."""
_MEMORY = 6 << 30
"""Bytes that a process may allocate: a fault can fill a list without end."""
_NOTHING_RAN, _BROKEN = 5, 99
"""Exit statuses: pytest's for "no test ran", and ours for a fault of this script."""


class Plugin:
    """Runs the wanted tests in their order and, if asked to, notes which lines each of them reaches."""

    def __init__(self, wanted: list[str] | None, seconds: float, traced: dict[str, str]) -> None:
        self.tests: dict[str, dict[str, Any]] = {}
        self.failed: list[str] = []
        self.stopped = False
        self._began = 0.0
        self._wanted, self._seconds, self._traced = wanted, seconds, traced
        self._lines: set[tuple[str, int]] = set()

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        if self._wanted is not None:
            rank = {name: place for place, name in enumerate(self._wanted)}
            items[:] = sorted((i for i in items if i.nodeid in rank), key=lambda item: rank[item.nodeid])

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._lines = set()
        began = time.process_time()
        self._began = self._began or began
        if self._traced:
            sys.settrace(self._trace)
        yield
        sys.settrace(None)
        lines: dict[str, list[int]] = {}
        for module, line in sorted(self._lines):
            lines.setdefault(module, []).append(line)
        self.tests[item.nodeid] = {"seconds": time.process_time() - began, "lines": lines}
        if time.process_time() - self._began > self._seconds:
            self.stopped = True
            item.session.shouldstop = "the time for this mutant is used up"

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)
        if report.skipped:
            self._lines.clear()

    def _trace(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        module = self._traced.get(frame.f_code.co_filename)
        if module is None:
            return None
        lines = self._lines

        def line(frame: FrameType, event: str, arg: object) -> Callable[..., Any]:
            lines.add((module, frame.f_lineno))
            return line

        return line


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


@dataclass
class Job:
    """One run of pytest in a private copy. `done` gets its exit status, None if it hung."""

    tests: list[str]
    done: Callable[[int | None, Path], None]
    wanted: list[str] | None = None
    seconds: float = float("inf")
    hang_s: float = 900.0
    traced: tuple[str, ...] = ()
    plant: tuple[str, bytes] | None = None


class Copies:
    """Private copies of the tree, one per worker, and the processes at work in them."""

    def __init__(self, root: Path, folder: Path, workers: int) -> None:
        names = subprocess.check_output(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=root).split(b"\0")
        self.free = [folder / f"copy{number}" for number in range(workers)]
        for copy in self.free:
            for name in map(os.fsdecode, filter(None, names)):
                if (root / name).is_file():
                    (copy / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(root / name, copy / name)
        os.environ.setdefault("VOXMILL_SHARED", str(root.parent / "shared"))
        self._running: dict[int, tuple[Job, Path, float]] = {}

    def run(self, jobs: list[Job]) -> None:
        """Run all jobs, as many at once as there are copies."""
        waiting = list(reversed(jobs))
        try:
            while waiting or self._running:
                while waiting and self.free:
                    self._start(waiting.pop(), self.free.pop())
                self._collect()
        finally:
            for process in self._running:
                os.killpg(process, signal.SIGKILL)

    def _start(self, job: Job, copy: Path) -> None:
        (copy / "result.json").unlink(missing_ok=True)
        if job.plant is not None:
            path = copy / job.plant[0]
            path.write_bytes(job.plant[1])
            # A cached module of the same size and second would hide the fault.
            for cached in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
                cached.unlink()
        sys.stdout.flush()
        process = os.fork()
        if process == 0:
            _pytest(job, copy)
        self._running[process] = (job, copy, time.monotonic())

    def _collect(self) -> None:
        process, status = os.waitpid(-1, os.WNOHANG)
        if process:
            job, copy, _ = self._running.pop(process)
            # What the tests started and left behind ends with them.
            _kill_group(process)
            died = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            code = None if died in (signal.SIGXCPU, signal.SIGKILL) else 128 + died if died else os.WEXITSTATUS(status)
            if code == _BROKEN or (job.plant is None and code is None):
                raise SystemExit(f"mutants: {job.tests[0]} did not run:\n{_output(copy)[-2000:]}")
            job.done(code, copy)
            self.free.append(copy)
            return
        for process, (job, _, began) in self._running.items():
            # A deadlock uses no processor time. The wall clock is generous: the machine may be busy.
            if time.monotonic() - began > 120 + 10 * job.hang_s:
                _kill_group(process)
        time.sleep(0.01)


def _output(copy: Path) -> str:
    return (copy / "output.txt").read_text(errors="replace")


def _kill_group(process: int) -> None:
    try:
        os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:
        return


def _pytest(job: Job, copy: Path) -> None:
    """Run pytest in this forked process, in `copy`; never returns."""
    code = _BROKEN
    try:
        os.setsid()
        os.chdir(copy)
        out = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(out, 1)
        os.dup2(out, 2)
        _settle_in(job, copy)
        plugin = Plugin(job.wanted, job.seconds, {str(copy / path): path for path in job.traced})
        options = ["-q", "-p", "no:cacheprovider", "-p", "no:timeout", "--tb=line", "-o", "addopts=", *_hypothesis()]
        options += ["--basetemp", tempfile.mkdtemp(dir=copy.parent), *([] if job.traced else ["-x"])]
        status = int(pytest.main([*options, *job.tests], plugins=[plugin]))
        for path in (job.plant[0], *job.traced) if job.plant else job.traced:
            _check_origin(copy, path)
        (copy / "result.json").write_text(json.dumps({"tests": plugin.tests, "failed": plugin.failed}))
        # pytest calls it an interruption when the time was used up: no test has failed then.
        code = 0 if (plugin.stopped and not plugin.failed) or status == _NOTHING_RAN else status
    except BaseException as error:
        print(repr(error))
    finally:
        sys.stdout.flush()
        os._exit(code)


def _settle_in(job: Job, copy: Path) -> None:
    """Make imports, temporary files and limits of this process those of its copy."""
    os.environ |= {
        "PYTHONPATH": f"{copy}{os.pathsep}{copy / 'tests'}",
        "PYTHONHASHSEED": "0",
        "TMPDIR": str(copy.parent),
    }
    tempfile.tempdir = str(copy.parent)
    if job.plant is not None:
        os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "VOXMILL_MUTANT": "1"}
        sys.dont_write_bytecode = True
    sys.path.insert(0, str(copy))
    seconds = int(job.hang_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))


def _hypothesis() -> list[str]:
    """Options: the same examples in every run, none remembered, and no time spent on shrinking them."""
    if "hypothesis" not in sys.modules:
        return []
    from hypothesis import HealthCheck, Phase, settings

    settings.register_profile(
        "mutants",
        database=None,
        phases=(Phase.explicit, Phase.generate),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    return ["--hypothesis-profile=mutants", "--hypothesis-seed=0"]


def _check_origin(copy: Path, path: str) -> None:
    """Raise RuntimeError if the module was imported from elsewhere: its mutants would all survive."""
    loaded = sys.modules.get(path.removesuffix(".py").replace("/", "."))
    if loaded is not None and Path(loaded.__file__ or "").resolve() != (copy / path).resolve():
        raise RuntimeError(f"{path} was imported from {loaded.__file__}, not from {copy}")


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
                output = _output(copy).strip().splitlines()
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
