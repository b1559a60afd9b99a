"""Runs of pytest in private copies of the tree, each in a process forked from one that has imported the large libraries."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

_MEMORY = 6 << 30
"""Bytes that a process may allocate: a fault can fill a list without end."""
_NOTHING_RAN, _BROKEN = 5, 99
"""Exit statuses: pytest's for "no test ran", and ours for a fault of this script."""


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
                raise SystemExit(f"mutants: {job.tests[0]} did not run:\n{output_of(copy)[-2000:]}")
            job.done(code, copy)
            self.free.append(copy)
            return
        for process, (job, _, began) in self._running.items():
            # A deadlock uses no processor time. The wall clock is generous: the machine may be busy.
            if time.monotonic() - began > 120 + 10 * job.hang_s:
                _kill_group(process)
        time.sleep(0.01)


def output_of(copy: Path) -> str:
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
