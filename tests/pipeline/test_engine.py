"""Engines against stages that die, hang, raise and fill the disk: who is quarantined, who comes through."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes.engine_stages import BatchConfig, Batches, TroubleConfig, out_of_memory
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import load_config
from pipeline.engine.api import DiskFullError, Engine, Outcome, SessionDone
from pipeline.engine.inline import InlineEngine
from pipeline.engine.pools import fit_promises, size_pools
from pipeline.engine.progress import Progress
from pipeline.engine.strikes import Strikes
from pipeline.engine.worker import StageGroup, StageSpec, Worker
from pipeline.records import Recording, Segment, Session, Source
from pipeline.runtime.batches import length_buckets
from pipeline.stage import LoadError
from pipeline.stages import stage_class

TROUBLE = "fakes.engine_stages:Trouble"
SECOND = "fakes.engine_stages:Second"


def session(name: str, *paths: str, folder: Path) -> Session:
    recordings = [Recording(Source(f"{name}-{p}", str(folder / p), p, name, 1, "0" * 64)) for p in paths]
    return Session(name, "fp", str(folder / "spool"), recordings)


def groups(timeout_s: float = 60.0, **config: Any) -> list[StageGroup]:
    return [
        StageGroup((StageSpec(TROUBLE, TroubleConfig(**config)),), timeout_s=timeout_s),
        StageGroup((StageSpec(SECOND, TroubleConfig()),), timeout_s=timeout_s),
    ]


def drive(engine: Engine, sessions: list[Session]) -> dict[str, Session]:
    try:
        done = [event.session for event in engine.run(iter(sessions)) if isinstance(event, SessionDone)]
    finally:
        engine.close()
    names = Counter(s.session_id for s in done)
    assert set(names.values()) == {1}, "a session must come out exactly once"
    return {s.session_id: s for s in done}


def statuses(session: Session) -> dict[str, str]:
    return {recording.source.relative_path: recording.status for recording in session.recordings}


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


def test_every_session_comes_out_once(make_engine: Any, tmp_path: Path) -> None:
    sessions = [session(f"s{i}", "a.wav", "b.wav", folder=tmp_path) for i in range(7)]
    done = drive(make_engine(groups()), sessions)
    assert set(done) == {f"s{i}" for i in range(7)}
    assert all(set(statuses(s).values()) == {"ok"} and not s.quarantine for s in done.values())
    assert all(set(s.busy_s) == {"trouble", "second"} for s in done.values())


def test_an_item_that_raises_is_quarantined_and_its_session_goes_on(make_engine: Any, tmp_path: Path) -> None:
    done = drive(make_engine(groups()), [session("s", "good.wav", "raise.wav", folder=tmp_path)])
    assert statuses(done["s"]) == {"good.wav": "ok", "raise.wav": "quarantined"}
    (row,) = done["s"].quarantine
    assert (row.stage, row.error) == ("trouble", "this recording is bad on purpose")


def test_a_full_disk_stops_the_run_and_quarantines_nothing(make_engine: Any, tmp_path: Path) -> None:
    with pytest.raises(DiskFullError):
        drive(make_engine(groups()), [session("s", "full.wav", folder=tmp_path)])


def test_a_model_that_does_not_load_stops_the_run_with_its_line(make_engine: Any, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="voxmill models pull trouble"):
        drive(make_engine(groups(load="fail")), [session("s", "a.wav", folder=tmp_path)])


def test_a_worker_that_dies_once_costs_nothing(ray_engine: Any, tmp_path: Path) -> None:
    sessions = [session("s", "once.wav", folder=tmp_path), session("t", "a.wav", folder=tmp_path)]
    done = drive(ray_engine(groups()), sessions)
    assert statuses(done["s"]) == {"once.wav": "ok"} and not done["s"].quarantine
    assert not list((tmp_path / "strikes").glob("*.json")), "a session that came through keeps no strikes"


def test_poison_is_found_out_and_quarantined_alone(ray_engine: Any, tmp_path: Path) -> None:
    sessions = [session("s", "good.wav", "poison.wav", "well.wav", folder=tmp_path)]
    sessions += [session(f"t{i}", "a.wav", folder=tmp_path) for i in range(4)]
    done = drive(ray_engine(groups()), sessions)
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


def test_a_stage_that_hangs_is_killed_and_its_item_quarantined(ray_engine: Any, tmp_path: Path) -> None:
    sessions = [session("s", "hang.wav", folder=tmp_path), session("t", "a.wav", folder=tmp_path)]
    done = drive(ray_engine(groups(timeout_s=2.0)), sessions)
    assert (
        statuses(done["s"]) == {"hang.wav": "quarantined"} and "no answer within 2 s" in done["s"].quarantine[0].error
    )
    assert statuses(done["t"]) == {"a.wav": "ok"}


def test_strikes_of_an_earlier_run_are_remembered(ray_engine: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for _ in range(2):
        Strikes(tmp_path / "strikes").add("s", "trouble", "died")
    done = drive(ray_engine(groups(log=str(log))), [session("s", "poison.wav", folder=tmp_path)])
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

    engine = RayEngine(groups(), tmp_path / "marks", tmp_path / "strikes")
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


def test_a_stage_that_goes_on_is_not_taken_for_one_that_hangs(ray_engine: Any, tmp_path: Path) -> None:
    names = [f"{i}.wav" for i in range(5)]
    done = drive(ray_engine(groups(timeout_s=2.0, seconds=0.8)), [session("s", *names, folder=tmp_path)])
    assert set(statuses(done["s"]).values()) == {"ok"}, "four seconds in all, but never two at one recording"


def batches(segments: list[float], **config: Any) -> tuple[Session, Outcome, list[list[float]]]:
    """A session of one recording with segments of these lengths, after the stage that works in batches."""
    stage = StageSpec("fakes.engine_stages:Batches", BatchConfig(**config))
    worker = Worker((stage,), "marks")
    worker.load()
    one = session("s", "a.wav", folder=Path("/"))
    source = one.recordings[0].source.source_id
    one.segments = [Segment(source, i, 0.0, seconds, segment_id=str(i)) for i, seconds in enumerate(segments)]
    one, outcome = worker.run(one, marked=False)
    return one, outcome, worker.stages[0].seen  # type: ignore[attr-defined]


@pytest.mark.parametrize("error", ["torch", "python", "text"])
def test_out_of_memory_halves_the_batch_until_it_fits(error: str) -> None:
    lengths = [float(1 + i % 7) for i in range(40)]
    one, outcome, seen = batches(lengths, batch_size=16, fits=3, error=error)
    assert all(segment.text == "written" for segment in one.segments) and not one.quarantine
    assert [x for batch in seen for x in batch] == sorted(lengths, reverse=True), "each once, the longest first"
    assert max(map(len, seen)) == 2 and outcome.halved == {"batches": 2}, "16, 8 and 4 do not fit, 2 does"


def test_what_does_not_fit_alone_is_quarantined_alone() -> None:
    one, outcome, _ = batches([1.0, 2.0, 30.0, 3.0], batch_size=4, seconds_fit=20.0)
    assert [segment.text for segment in one.segments] == ["written", "written", None, "written"]
    assert one.segments[2].failures == ["failed_batches"]
    (row,) = one.quarantine
    assert "out of memory" in row.error and outcome.halved == {"batches": 1}


def test_one_bad_item_of_a_batch_costs_only_itself() -> None:
    stage = Batches(BatchConfig(batch_size=4))
    stage.load()
    one = session("s", "a.wav", folder=Path("/"))
    one.segments = [Segment(one.recordings[0].source.source_id, i, 0.0, 1.0) for i in range(4)]
    one.segments[2].text = "bad"
    stage(one)
    assert [bool(segment.failures) for segment in one.segments] == [False, False, True, False]
    assert "bad on purpose" in one.quarantine[0].error and not stage.halved


@given(st.lists(st.floats(0.1, 60.0), max_size=60), st.integers(1, 17))
def test_length_buckets_lose_and_mix_nothing(lengths: list[float], size: int) -> None:
    buckets = length_buckets(lengths, size, lambda x: x)
    assert sorted(x for bucket in buckets for x in bucket) == sorted(lengths)
    assert all(0 < len(bucket) <= size for bucket in buckets)
    assert all(min(a) >= max(b) for a, b in itertools.pairwise(buckets))


@pytest.mark.parametrize("kind", ["torch", "python", "ctranslate2"])
def test_what_comes_of_batches_is_in_order_however_often_they_are_halved(kind: str) -> None:
    stage = Batches(BatchConfig())
    sizes: list[int] = []

    def work(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        if len(items) > 3:
            raise out_of_memory(kind)
        return [10 * item for item in items]

    assert stage.in_batches(range(12), work, 8) == [10 * i for i in range(12)]
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 2] and stage.halved == [4, 2]

    def hopeless(items: Sequence[int]) -> list[int]:
        raise out_of_memory(kind)

    def broken(items: Sequence[int]) -> list[int]:
        raise ValueError("not the memory")

    with pytest.raises(type(out_of_memory(kind))):
        stage.in_batches([1, 2], hopeless, 2)
    with pytest.raises(ValueError, match="not the memory"):
        stage.in_batches([1, 2], broken, 2)


def test_a_recording_that_fails_late_leaves_no_segments() -> None:
    stage = Batches(BatchConfig())
    one = session("s", "a.wav", "b.wav", folder=Path("/"))
    one.segments = [Segment(r.source.source_id, i, 0.0, 1.0, segment_id=str(i)) for i, r in enumerate(one.recordings)]

    def work(recording: Recording) -> None:
        if recording.source.relative_path == "a.wav":
            raise MemoryError

    stage.for_each(one, one.usable(), work)
    assert statuses(one) == {"a.wav": "quarantined", "b.wav": "ok"}
    assert [segment.segment_id for segment in one.segments] == ["1"]


def chain(*actors: int, gpus: float = 0.0, cpus: float = 0.2) -> list[StageGroup]:
    names = ("decode", "transcribe", "cut_clips")
    specs = [StageSpec(name, stage_class(name).config_type()) for name in names]
    shares = (0.0, gpus, 0.0)
    return [StageGroup((s,), n, cpus, g) for s, n, g in zip(specs, actors, shares, strict=True)]


def test_pools_grow_with_the_node() -> None:
    assert [group.actors for group in size_pools(chain(0, 0, 0), 1, 0)] == [1, 1, 1]
    assert [group.actors for group in size_pools(chain(0, 0, 0), 2, 0)] == [1, 2, 1]
    many = size_pools(chain(0, 0, 0), 32, 0)
    assert many[1].actors > 20 * many[0].actors > 0, "transcribe is the slowest and gets most"
    assert sum(group.actors for group in many) <= 2 * 32
    assert [group.actors for group in size_pools(chain(2, 3, 4), 32, 0)] == [2, 3, 4], "what was said stays"
    assert size_pools(chain(0, 0, 0, gpus=0.5), 8, 4)[1].actors == 8, "two share a GPU, and there are four"


def test_two_cores_get_two_recognisers_of_the_whole_chain() -> None:
    """With one, which computes with one thread, nothing else fills the second core."""
    sized = {group.stages[0].name: group.actors for group in size_pools(load_config().groups(), 2, 0)}
    assert sized.pop("transcribe") == 2 and set(sized.values()) == {1}


def test_promises_never_take_the_whole_node() -> None:
    fitted = fit_promises(chain(1, 1, 1, cpus=0.5), 1, 0)
    assert 0 < sum(group.actors * group.cpus for group in fitted) <= 0.9
    assert fit_promises(chain(1, 1, 1), 2, 0) == chain(1, 1, 1)
    with pytest.raises(LoadError, match=r"lower engine\.actors"):
        fit_promises(chain(50, 1, 1, cpus=1.0), 4, 0)
    with pytest.raises(LoadError, match="2 GPUs and Ray has 1"):
        fit_promises(chain(1, 4, 1, gpus=0.5), 64, 1)


def test_progress_tells_speed_time_left_and_share_kept() -> None:
    now = [0.0]
    progress = Progress(sessions=4, audio_s=400.0, clock=lambda: now[0])
    assert progress.left_s is None and progress.kept_share is None
    now[0] = 10.0
    for _ in range(2):
        progress.stage_done(Outcome(busy_s={"fast": 1.0}, audio_s=100.0))
    progress.stage_done(Outcome(busy_s={"slow": 9.0}, audio_s=100.0))
    progress.session_done(audio_s=100.0, speech_s=80.0, kept_s=60.0)
    assert progress.kept_share == 0.75
    assert progress.stage_times_real_time == {"fast": 100.0, "slow": pytest.approx(100 / 9)}
    # 11 busy seconds of the 4 + 36 that it will take: 10 s for 27.5 %.
    assert progress.left_s == pytest.approx(10 * 29 / 11)
    assert progress.times_real_time == pytest.approx(400 * 0.275 / 10)
