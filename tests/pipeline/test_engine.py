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


def test_every_session_comes_out_once_and_an_item_that_raises_is_quarantined(make_engine: Any, tmp_path: Path) -> None:
    sessions = [session(f"s{i}", "a.wav", "b.wav", folder=tmp_path) for i in range(7)]
    sessions.insert(3, session("bad", "good.wav", "raise.wav", folder=tmp_path))
    done = drive(make_engine(two_groups()), sessions)
    assert all(set(s.busy_s) == {"trouble", "second"} for s in done.values())
    bad = done.pop("bad")
    assert statuses(bad) == {"good.wav": "ok", "raise.wav": "quarantined"}
    (row,) = bad.quarantine
    assert (row.stage, row.error) == ("trouble", "this recording is bad on purpose")
    assert set(done) == {f"s{i}" for i in range(7)}
    assert all(set(statuses(s).values()) == {"ok"} and not s.quarantine for s in done.values())


def test_a_full_disk_stops_the_run_and_quarantines_nothing(make_engine: Any, tmp_path: Path) -> None:
    with pytest.raises(DiskFullError):
        drive(make_engine(trouble()), [session("s", "full.wav", folder=tmp_path)])


def test_a_model_that_does_not_load_stops_the_run_with_its_line(make_engine: Any, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="voxmill models pull trouble"):
        drive(make_engine(trouble(load="fail")), [session("s", "a.wav", folder=tmp_path)])


def test_a_worker_that_dies_once_costs_nothing(ray_engine: Any, tmp_path: Path) -> None:
    sessions = [session("s", "once.wav", folder=tmp_path), session("t", "a.wav", folder=tmp_path)]
    done = drive(ray_engine(trouble()), sessions)
    assert statuses(done["s"]) == {"once.wav": "ok"} and not done["s"].quarantine
    assert not list((tmp_path / "strikes").glob("*.json")), "a session that came through keeps no strikes"


def test_poison_is_found_out_and_quarantined_alone(ray_engine: Any, tmp_path: Path) -> None:
    sessions = [session("s", "good.wav", "poison.wav", "well.wav", folder=tmp_path)]
    sessions += [session(f"t{i}", "a.wav", folder=tmp_path) for i in range(4)]
    done = drive(ray_engine(two_groups()), sessions)
    assert statuses(done["s"]) == {"good.wav": "ok", "poison.wav": "quarantined", "well.wav": "ok"}
    (row,) = done["s"].quarantine
    assert row.attempts == 3 and row.stage == "trouble" and "worker died" in row.error
    assert all(set(statuses(done[f"t{i}"]).values()) == {"ok"} for i in range(4))


@pytest.mark.parametrize("stage", ["SplitsChannels", "BatchesOfRecordings"])
def test_poison_is_found_in_a_second_channel_and_in_a_batch(ray_engine: Any, tmp_path: Path, stage: str) -> None:
    """Of a batch the first is noted as at work, of a split file a recording that the plan does not know."""
    spec = StageSpec(f"fakes.engine_stages:{stage}", TroubleConfig())
    sessions = [session("s", "good.wav", "poison.wav", "well.wav", folder=tmp_path)]
    done = drive(ray_engine([StageGroup((spec,))]), sessions)["s"]
    assert [row.path for row in done.quarantine] == [str(tmp_path / "poison.wav")]
    assert {r.source.relative_path for r in done.usable()} == {"good.wav", "well.wav"}


def test_a_stage_that_hangs_is_killed_and_one_that_goes_on_is_not(ray_engine: Any, tmp_path: Path) -> None:
    names = [f"{i}.wav" for i in range(5)]
    sessions = [session("s", "hang.wav", folder=tmp_path), session("t", *names, folder=tmp_path)]
    done = drive(ray_engine(trouble(timeout_s=2.0, seconds=0.8)), sessions)
    assert statuses(done["s"]) == {"hang.wav": "quarantined"}
    assert "no answer within 2 s" in done["s"].quarantine[0].error
    assert set(statuses(done["t"]).values()) == {"ok"}, "four seconds in all, but never two at one recording"


def test_strikes_of_an_earlier_run_are_remembered(ray_engine: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for _ in range(2):
        Strikes(tmp_path / "strikes").add("s", "trouble", "died")
    done = drive(ray_engine(trouble(log=str(log))), [session("s", "poison.wav", folder=tmp_path)])
    assert statuses(done["s"]) == {"poison.wav": "quarantined"}
    assert len(log.read_text().splitlines()) == 1, "two strikes from before: one more death is enough"


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
def memory_group() -> Iterator[Path]:
    """A control group of the kernel whose processes may take 256 MB together; skips where none may be made."""
    top, limit = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
    if not top.is_dir():
        top, limit = Path("/sys/fs/cgroup"), "memory.max"
    if not (top / "cgroup.procs").is_file():
        pytest.skip(f"{top} is not a folder of control groups")
    group = top / f"voxmill-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(256 << 20))
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"may not limit a control group's memory here: {error}")
    yield group
    deadline = time.monotonic() + 10
    while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.1)  # the killed process is not gone yet
    group.rmdir()


@pytest.mark.parametrize("fate", ["kill", "memory_group"])
def test_a_worker_that_the_kernel_kills_costs_one_recording_which_the_next_run_takes(
    ray_node: None, tmp_path: Path, fate: str, request: pytest.FixtureRequest
) -> None:
    """By SIGKILL, and by the memory limit of a control group."""
    site = Site(tmp_path, 3)
    site.fail(fate if fate == "kill" else f"group {request.getfixturevalue(fate)}", "01.wav")
    first = site.run(unit_s=100.0, executor="ray")
    assert site.quarantine() == [("01.wav", "machine", 1)] and first.quarantined[0]["stage"] == "trouble"
    assert "worker died" in first.quarantined[0]["error"]
    site.mend()
    second = site.run(unit_s=100.0, executor="ray")
    assert (second.already_there, second.tried_again) == (2, 1) and site.quarantine() == []
    site.check(3)
    assert not list((site.corpus / "strikes").glob("*.json")), "what is committed needs no strikes any more"
