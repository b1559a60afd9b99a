"""Engines against stages that die, hang, raise and fill the disk: who is quarantined, who comes through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.engine_stages import TroubleConfig

from pipeline.engine.base import DiskFullError, Engine, StageGroup, StageSpec
from pipeline.engine.inline import InlineEngine
from pipeline.records import Recording, Session, Source
from pipeline.stage import LoadError

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
    done: list[Session] = []
    try:
        engine.run(iter(sessions), done.append, lambda group, outcome: None)
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


def test_a_stage_that_hangs_is_killed_and_its_item_quarantined(ray_engine: Any, tmp_path: Path) -> None:
    sessions = [session("s", "hang.wav", folder=tmp_path), session("t", "a.wav", folder=tmp_path)]
    done = drive(ray_engine(groups(timeout_s=2.0)), sessions)
    assert (
        statuses(done["s"]) == {"hang.wav": "quarantined"} and "no answer within 2 s" in done["s"].quarantine[0].error
    )
    assert statuses(done["t"]) == {"a.wav": "ok"}


def test_strikes_of_an_earlier_run_are_remembered(ray_engine: Any, tmp_path: Path) -> None:
    from pipeline.engine.strikes import Strikes

    log = tmp_path / "log"
    for _ in range(2):
        Strikes(tmp_path / "strikes").add("s", "trouble", "died")
    done = drive(ray_engine(groups(log=str(log))), [session("s", "poison.wav", folder=tmp_path)])
    assert statuses(done["s"]) == {"poison.wav": "quarantined"}
    assert len(log.read_text().splitlines()) == 1, "two strikes from before: one more death is enough"


def test_actors_that_would_fill_the_node_are_refused(ray_engine: Any) -> None:
    with pytest.raises(LoadError, match="CPUs"):
        ray_engine([StageGroup((StageSpec(TROUBLE, TroubleConfig()),), actors=50, cpus=1.0)])
