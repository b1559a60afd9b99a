"""Engines against stages that die, hang, raise and fill the disk: who is quarantined, who comes through."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.engine_stages import TroubleConfig, session, statuses
from fakes.failing_site import Site

from catalogs.corpus.ids import other_channel_id
from pipeline.engine.api import DiskFullError, Engine, SessionDone
from pipeline.engine.inline import InlineEngine
from pipeline.engine.strikes import Strikes
from pipeline.engine.worker import StageGroup, StageSpec
from pipeline.records import Session
from pipeline.stage import LoadError

TROUBLE = "fakes.engine_stages:Trouble"
SECOND = "fakes.engine_stages:Second"


def trouble(timeout_s: float = 60.0, **config: Any) -> list[StageGroup]:
    """One group: each actor takes more than a second of CPU to start."""
    return [StageGroup((StageSpec(TROUBLE, TroubleConfig(**config)),), timeout_s=timeout_s)]


def two_groups(**config: Any) -> list[StageGroup]:
    return [*trouble(**config), StageGroup((StageSpec(SECOND, TroubleConfig()),))]


def drive(engine: Engine, sessions: list[Session]) -> dict[str, Session]:
    try:
        done = [event.session for event in engine.run(iter(sessions)) if isinstance(event, SessionDone)]
    finally:
        engine.close()
    names = Counter(s.session_id for s in done)
    assert set(names.values()) == {1}, "a session must come out exactly once"
    return {s.session_id: s for s in done}


@pytest.fixture(params=["inline", "ray"])
def make_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "inline":
        yield lambda stage_groups: InlineEngine(stage_groups, tmp_path / "marks")
        return
    request.getfixturevalue("ray_node")
    from pipeline.engine.ray_engine import RayEngine

    yield lambda stage_groups: RayEngine(stage_groups, tmp_path / "marks", tmp_path / "strikes")


@pytest.fixture
def ray_engine(ray_node: None, tmp_path: Path) -> Any:
    from pipeline.engine.ray_engine import RayEngine

    return lambda stage_groups: RayEngine(stage_groups, tmp_path / "marks", tmp_path / "strikes")


def test_every_session_comes_out_once_and_an_item_that_raises_is_quarantined(tmp_path: Path) -> None:
    sessions = [session(f"s{i}", "a.wav", "b.wav", folder=tmp_path) for i in range(7)]
    sessions.insert(3, session("bad", "good.wav", "raise.wav", folder=tmp_path))
    done = drive(InlineEngine(two_groups(), tmp_path / "marks"), sessions)
    assert_only_bad_is_quarantined(done)


def assert_only_bad_is_quarantined(done: dict[str, Session]) -> None:
    assert all(set(s.busy_s) == {"trouble", "second"} for s in done.values())
    bad = done.pop("bad")
    assert statuses(bad) == {"good.wav": "ok", "raise.wav": "quarantined"}
    (row,) = bad.quarantine
    assert (row.stage, row.error) == ("trouble", "this recording is bad on purpose")
    assert set(done) == {f"s{i}" for i in range(7)}
    assert all(set(statuses(s).values()) == {"ok"} and not s.quarantine for s in done.values())


def test_among_others_poison_is_found_out_and_one_death_costs_nothing(ray_engine: Any, tmp_path: Path) -> None:
    """One run with all of it: a recording that raises, one that always kills its worker, and one that kills it once."""
    sessions = [session(f"s{i}", "a.wav", "b.wav", folder=tmp_path) for i in range(7)]
    sessions.insert(3, session("bad", "good.wav", "raise.wav", folder=tmp_path))
    sessions.insert(2, session("poison", "good.wav", "poison.wav", "well.wav", folder=tmp_path))
    sessions.insert(1, session("once", "once.wav", folder=tmp_path))
    done = drive(ray_engine(two_groups()), sessions)
    once, poison = done.pop("once"), done.pop("poison")
    assert statuses(once) == {"once.wav": "ok"} and not once.quarantine
    assert (tmp_path / "once.wav.died").exists()
    assert statuses(poison) == {"good.wav": "ok", "poison.wav": "quarantined", "well.wav": "ok"}
    (row,) = poison.quarantine
    assert row.attempts == 3 and row.stage == "trouble" and "worker died" in row.error
    (kept,) = (tmp_path / "strikes").glob("*.json")
    assert '"poison"' in kept.read_text(), "a session that came through keeps no strikes"
    assert_only_bad_is_quarantined(done)


def test_a_full_disk_stops_the_run_and_quarantines_nothing(make_engine: Any, tmp_path: Path) -> None:
    with pytest.raises(DiskFullError):
        drive(make_engine(trouble()), [session("s", "full.wav", folder=tmp_path)])


def test_a_model_that_does_not_load_stops_the_run_with_its_line(make_engine: Any, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="voxmill models pull trouble"):
        drive(make_engine(trouble(load="fail")), [session("s", "a.wav", folder=tmp_path)])


def test_poison_is_found_in_a_second_channel_and_in_a_batch(ray_engine: Any, tmp_path: Path) -> None:
    """Of a batch the first is noted as at work, of a split file a recording that the plan does not know. The strikes of an
    earlier run spare the deaths that prove no more."""
    strikes = Strikes(tmp_path / "strikes")
    strikes.add("batch", "batches_of_recordings", "died", "batch-good.wav")
    for _ in range(2):
        strikes.add("split", "splits_channels", "died", other_channel_id("split-poison_channel.wav"))
    stages = ("BatchesOfRecordings", "SplitsChannels")
    groups = [StageGroup(tuple(StageSpec(f"fakes.engine_stages:{stage}", TroubleConfig()) for stage in stages))]
    bad = {"batch": "poison_batch.wav", "split": "poison_channel.wav"}
    sessions = [session(name, "good.wav", path, "well.wav", folder=tmp_path) for name, path in bad.items()]
    done = drive(ray_engine(groups), sessions)
    for name, path in bad.items():
        assert [row.path for row in done[name].quarantine] == [str(tmp_path / path)]
        assert {r.source.relative_path for r in done[name].usable()} == {"good.wav", "well.wav"}
    assert done["batch"].quarantine[0].attempts == 4, "a batch died once more, and then its poison twice alone"
    assert done["split"].quarantine[0].attempts == 3, "it was the same channel that died before"


def test_a_stage_that_hangs_is_killed_and_one_that_goes_on_is_not(ray_engine: Any, tmp_path: Path) -> None:
    """Nor is one with a limit of its own. The strikes of an earlier run are remembered."""
    log = tmp_path / "log"
    for _ in range(2):
        Strikes(tmp_path / "strikes").add("s", "trouble", "died")
    specs = (
        StageSpec(TROUBLE, TroubleConfig(seconds=0.8, log=str(log))),
        StageSpec(SECOND, TroubleConfig(seconds=2.5, harmless=True)),
    )
    group = StageGroup(specs, timeout_s=2.0, timeouts={"second": 60.0})
    names = [f"{i}.wav" for i in range(4)]
    sessions = [session("s", "hang.wav", "a.wav", folder=tmp_path), session("t", *names, folder=tmp_path)]
    done = drive(ray_engine([group]), sessions)
    assert statuses(done["s"]) == {"hang.wav": "quarantined", "a.wav": "ok"}
    (row,) = done["s"].quarantine
    assert row.stage == "trouble" and row.attempts == 3 and "no answer within 2 s" in row.error
    assert log.read_text().splitlines().count("s-hang.wav") == 1, "two strikes from before: one more is enough"
    assert set(statuses(done["t"]).values()) == {"ok"}, "three seconds in all, but never two at one recording"


@pytest.mark.parametrize("failures", [2, 3])
def test_ray_is_started_again_on_a_machine_that_is_too_busy(monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    from pipeline.engine import ray_node

    calls: list[dict[str, Any]] = []

    def init(**options: Any) -> None:
        calls.append(options)
        if len(calls) <= failures:
            raise Exception("The current node timed out during startup. This could happen because ...")

    monkeypatch.setattr("ray.init", init)
    if failures == 3:
        with pytest.raises(Exception, match="timed out"):
            ray_node.start_ray(num_cpus=2)
    else:
        ray_node.start_ray(num_cpus=2)
    assert [call["num_cpus"] for call in calls] == [2, 2, 2]


def test_another_fault_of_ray_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.engine import ray_node

    calls: list[str] = []

    def init(**options: Any) -> None:
        calls.append("init")
        raise ConnectionError("no cluster")

    monkeypatch.setattr("ray.init", init)
    with pytest.raises(ConnectionError):
        ray_node.start_ray(address="ray://nowhere")
    assert calls == ["init"]


def test_actors_that_would_fill_the_node_are_refused(ray_engine: Any) -> None:
    with pytest.raises(LoadError, match="CPUs"):
        ray_engine([StageGroup((StageSpec(TROUBLE, TroubleConfig()),), actors=50, cpus=1.0)])


def test_a_gpu_that_is_not_there_is_said_at_once(ray_engine: Any) -> None:
    with pytest.raises(LoadError, match="GPUs and Ray has 0"):
        ray_engine([StageGroup((StageSpec(TROUBLE, TroubleConfig()),), gpus=0.5)])


def test_an_idle_worker_that_dies_is_nobodys_fault(ray_node: None, tmp_path: Path) -> None:
    from pipeline.engine.ray_engine import RayEngine

    engine = RayEngine(trouble(), tmp_path / "marks", tmp_path / "strikes")
    done: list[str] = []

    def sessions() -> Iterator[Session]:
        yield session("s0", "a.wav", folder=tmp_path)
        while not done:
            # The engine asks for more sessions than it has through: only the first may come before the deaths.
            yield session(f"early{time.monotonic_ns()}", "a.wav", folder=tmp_path)
        for member in list(engine._members):
            os.kill(pid_of(member.actor), signal.SIGKILL)
        yield session("s1", "a.wav", folder=tmp_path)

    import ray

    def pid_of(actor: Any) -> int:
        return int(ray.get(actor.__ray_call__.remote(lambda self: os.getpid())))

    blamed: list[str] = []
    add = engine._strikes.add
    engine._strikes.add = lambda *a, **k: blamed.append(a[0]) or add(*a, **k)  # type: ignore[method-assign, func-returns-value]
    try:
        for event in engine.run(sessions()):
            if isinstance(event, SessionDone):
                done.append(event.session.session_id)
    finally:
        engine.close()
    assert "s1" in done and len(done) == len(set(done)) and blamed == []


@pytest.fixture
def memory_group() -> Iterator[Path | str]:
    """A control group of the kernel whose processes may take 256 MB together; where none may be made, why not."""
    top, limit = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
    if not top.is_dir():
        top, limit = Path("/sys/fs/cgroup"), "memory.max"
    if not (top / "cgroup.procs").is_file():
        yield f"{top} is not a folder of control groups"
        return
    group = top / f"voxmill-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(256 << 20))
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        yield f"may not limit a control group's memory here: {error}"
        return
    yield group
    deadline = time.monotonic() + 10
    while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.1)  # the killed process is not gone yet
    group.rmdir()


def test_workers_that_the_kernel_kills_cost_their_recordings_which_the_next_run_takes(
    ray_node: None, tmp_path: Path, memory_group: Path | str
) -> None:
    """By SIGKILL, and by the memory limit of a control group."""
    site = Site(tmp_path, 3)
    site.fail("kill", "01.wav")
    killed = ["01.wav"]
    if isinstance(memory_group, Path):
        site.fail(f"group {memory_group}", "02.wav")
        killed.append("02.wav")
    first = site.run(unit_s=100.0, executor="ray")
    assert site.quarantine() == [(name, "machine", 1) for name in killed]
    assert len(first.quarantined) == len(killed)
    assert all(row["stage"] == "trouble" and "worker died" in row["error"] for row in first.quarantined)
    assert not list((site.corpus / "strikes").glob("*.json")), "what is committed needs no strikes any more"
    site.mend()
    second = site.run(unit_s=100.0)
    assert (second.already_there, second.tried_again) == (3 - len(killed), len(killed)) and site.quarantine() == []
    site.check(3)
    if isinstance(memory_group, str):
        pytest.skip(memory_group)
