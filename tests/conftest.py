"""What every test may ask for: the shared folder of real speech and golden numbers, and the offline weights."""

from __future__ import annotations

import atexit
import gc
import json
import math
import os
import random
import secrets
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
DURATIONS = REPOSITORY / "tests" / "durations.json"
"""Seconds by test file. VOXMILL_TEST_DURATIONS=1 makes a run of the suite write it."""
_QUICK_S = 3.0
_LONG_S = 20.0
_ON_RAY = (
    "test_cluster_benchmark.py",
    "test_engine.py",
    "test_forecast.py",
    "test_progress.py",
    "test_speak_table_ray.py",
    "test_train_ray.py",
)
"""Files that ask for `ray_node`: in one process, since a Ray that waits uses 2 % of a core in each."""
_SEED_NAME = "VOXMILL_TEST_SEED"
_SEED = int(os.environ.setdefault(_SEED_NAME, str(secrets.randbelow(2**31))))
"""In the environment, so that the processes that pytest-xdist starts have the same one."""

# Hundreds of processes are started, and each would compile our modules again. Not where a planted fault may be as old and as long
# as what it replaces: its bytecode would not be told apart.
if "VOXMILL_MUTANT" not in os.environ:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Several test processes share the cores: a second thread in each would mostly spin while it waits for the first.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests mark the speech of toy checkpoints, which the user's own list need not know.
os.environ.setdefault("VOXMILL_MARKS", str(Path(tempfile.mkdtemp(prefix="voxmill-marks-")) / "marks.jsonl"))
atexit.register(shutil.rmtree, Path(os.environ["VOXMILL_MARKS"]).parent, ignore_errors=True)

# Ray's workers have a niceness of 15: beside the suite's other processes they would get a few percent of a core.
os.environ.setdefault("RAY_worker_niceness", "0")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take --quick: the test files that take a few seconds, for the edit loop."""
    parser.addoption("--quick", action="store_true", help=f"Leave out test files that take more than {_QUICK_S:g} s.")
    parser.addoption("--turn", action="store_true", help="Leave out half of the long test files, drawn by the seed.")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out long files with --quick, half of them with --turn; those that the table does not know are run."""
    if collection_path.suffix != ".py":
        return None
    scope = scope_of(collection_path.as_posix())
    quick = config.getoption("--quick") and _seconds_by_file().get(scope, 0.0) > _QUICK_S
    return quick or (config.getoption("--turn") and scope in _left_out()) or None


@cache
def _left_out() -> frozenset[str]:
    """The long files that it is not the turn of. Which half is run follows from the seed; both halves take about as long."""
    longest = sorted((-taken, name) for name, taken in _seconds_by_file().items() if taken > _LONG_S)
    return frozenset(name for number, (_, name) in enumerate(longest) if number % 2 != _SEED % 2)


@cache
def _seconds_by_file() -> dict[str, float]:
    found: dict[str, float] = json.loads(DURATIONS.read_text(encoding="utf-8"))
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give Hypothesis the run's seed, unless it already has one, and no time limits: the machine may be busy."""
    from hypothesis import HealthCheck, settings

    settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    if getattr(config.option, "hypothesis_profile", None) is None:
        config.option.hypothesis_profile = "suite"
    if getattr(config.option, "hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(_SEED)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Let each process import another part of the test files first.

    pytest rewrites their assertions, which takes half a minute, and keeps the result. Without this, all processes do all of it.
    """
    config = session.config
    if config.args != config.getini("testpaths") or not hasattr(config, "workerinput"):
        return
    number, count = int(config.workerinput["workerid"].removeprefix("gw")), config.workerinput["workercount"]
    left_out = _left_out() if config.getoption("--turn") else ()
    paths = [path for path in (REPOSITORY / "tests").rglob("test_*.py") if scope_of(path.name) not in left_out]
    for path in sorted(paths)[number::count]:
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))
        # What cannot be imported is reported where it is collected.
        with suppress(Exception, pytest.skip.Exception):
            import_module(path.stem)


def pytest_collection_finish() -> None:
    """Take all modules out of the garbage collector's sight: a full collection takes half a second of looking at them.

    It had 6 % of the suite's CPU, so it looks less often, too.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


def _keep_commands() -> None:
    """Make the command line once in each process, not in each call of it: that takes 0.2 s."""
    import typer.main
    import typer.testing

    made = cache(typer.main.get_command)
    for module, name in ((typer.main, "get_command"), (typer.testing, "_get_command")):
        assert hasattr(module, name)
        setattr(module, name, made)


_keep_commands()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep each file's tests in one process, in order: they share fixtures. Files that take longest are started first.

    test_golden_unused looks back at all golden ones. Without the order by time, the longest file may be the last one, and the
    other processes wait for it.
    """
    from xdist.scheduler import LoadScopeScheduling

    seconds = _seconds_by_file()

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

        def _assign_work_unit(self, node: Any) -> None:
            # A file that the table does not know may take long.
            longest = max(self.workqueue, key=lambda scope: seconds.get(scope, math.inf))
            self.workqueue.move_to_end(longest, last=False)
            super()._assign_work_unit(node)

    return ByFile(config, log)


def scope_of(nodeid: str) -> str:
    """The name of the file that a test is in, or of several files: the tests of one name stay together."""
    name = nodeid.split("::")[0].rpartition("/")[2]
    return "golden" if name.startswith("test_golden_") else "ray" if name in _ON_RAY else name


_taken: defaultdict[str, float] = defaultdict(float)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up how long each file takes."""
    _taken[scope_of(report.nodeid)] += report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Store the times of the files that were run where that is asked for."""
    if os.environ.get("VOXMILL_TEST_DURATIONS") and not hasattr(session.config, "workerinput"):
        there = {scope_of(path.name) for path in (REPOSITORY / "tests").rglob("test_*.py")}
        known = _seconds_by_file() | {name: round(taken, 1) for name, taken in _taken.items()}
        text = json.dumps({name: known[name] for name in sorted(there & known.keys())}, indent=1)
        DURATIONS.write_text(text + "\n", encoding="utf-8")


def pytest_report_header() -> str:
    """The seed, in the head of the report."""
    return _seed_words()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The seed again at the end: the head is not printed with -q."""
    terminalreporter.write_line(_seed_words())
    if terminalreporter.config.getoption("--turn"):
        left = ", ".join(sorted(_left_out()))
        terminalreporter.write_line(f"left to another turn (make test-all runs all): {left}")


def _seed_words() -> str:
    return f"seed of all random choices: {_SEED} (the same again: {_SEED_NAME}={_SEED})"


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers of one test: they follow from the run's seed and the test's name."""
    return random.Random(f"{_SEED} {request.node.path.name} {request.node.name}")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden numbers and labeled speech that stands beside the checkout; skips where it is absent."""
    folder = Path(os.environ.get("VOXMILL_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared folder at {folder} (golden numbers and real speech live there)")
    return folder


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """The golden vectors (`GOLDEN_DIR`, default ../shared/golden); skips where they are absent."""
    folder = Path(os.environ.get("GOLDEN_DIR", shared / "golden"))
    if not (folder / "meta.json").is_file():
        pytest.skip(f"no golden vectors at {folder}")
    return folder


@pytest.fixture(scope="session")
def corpora(shared: Path) -> Path:
    """Labeled real speech (../shared/corpora); skips where it is absent."""
    folder = shared / "corpora"
    if not (folder / "manifest.jsonl").is_file():
        pytest.skip(f"no labeled speech at {folder}")
    return folder


@pytest.fixture(scope="session")
def ray_node() -> Iterator[None]:
    """One Ray on this machine for all tests that need it (starting it takes five seconds)."""
    import ray
    from fakes.lean_ray import spare

    from pipeline.engine.ray_node import start_ray

    # The workers must find the stand-in stages of tests/fakes.
    # The repository goes first: tests/pipeline must not be taken for the package pipeline.
    # Back again afterwards: what other tests start does not depend on whether they come after this.
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")]))
        spare(patched.setattr)
        start_ray(address="local", num_cpus=4)
        yield
        ray.shutdown()
