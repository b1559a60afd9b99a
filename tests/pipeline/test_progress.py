"""How far a run is: within one long session too, stage by stage, and when a single stage is at one item for too long."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from fakes.engine_stages import TroubleConfig, session
from test_engine import SECOND, TROUBLE

from catalogs.settings import SettingsError
from pipeline.config import load_config
from pipeline.engine.api import GroupDone, ItemStarted, Outcome, SessionDone
from pipeline.engine.heartbeat import mark_path, read_mark
from pipeline.engine.inline import InlineEngine
from pipeline.engine.progress import Progress
from pipeline.engine.worker import StageGroup, StageSpec, Worker
from pipeline.records import Recording, Segment, Session
from pipeline.stage import Stage, StageConfig

COSTS = {"decode": 0.02, "transcribe": 1.0, "score": 0.3}


def share_and_left(progress: Progress) -> tuple[float | None, float | None]:
    return progress.share, progress.left_s


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_recording_of_hours_has_a_time_left_as_soon_as_its_slow_stage_is_under_way() -> None:
    """An hour in one session: 36 s to decode, an hour's transcripts in 10 minutes, scores in 3 more."""
    clock = Clock()
    progress = Progress(sessions=1, audio_s=3600.0, clock=clock, costs=COSTS)
    clock.now = 20.0
    progress.item_started(ItemStarted("s", "decode", 0.0))
    assert progress.share is None and progress.left_s is None, "loading says nothing of the time left"
    clock.now = 56.0
    progress.stage_done(Outcome("s", busy_s={"decode": 36.0}, audio_s=3600.0))
    assert progress.left_s is None, "of the work, decoding is too little to go by"
    progress.item_started(ItemStarted("s", "transcribe", 0.0))
    clock.now += 300.0
    progress.item_started(ItemStarted("s", "transcribe", 1800.0))
    # 36 + 600 s known; scoring is estimated at 0.3 / 1.02 of that.
    whole = 636.0 * (1 + 0.3 / 1.02)
    assert progress.share == pytest.approx(336 / whole)
    assert progress.left_s == pytest.approx(whole - 336)
    assert progress.times_real_time == pytest.approx(336 / whole * 3600 / clock.now)
    assert progress.stage_times_real_time == {"decode": pytest.approx(100.0), "transcribe": pytest.approx(6.0)}
    assert progress.at_work == {"transcribe": 1}
    clock.now += 300.0
    progress.stage_done(Outcome("s", busy_s={"transcribe": 600.0}, audio_s=3600.0))
    progress.item_started(ItemStarted("s", "score", 0.0))
    clock.now += 90.0
    progress.item_started(ItemStarted("s", "score", 1800.0))
    assert progress.left_s == pytest.approx(90.0), "all paces are measured"
    progress.session_done(3600.0, 3000.0, 2400.0)
    assert share_and_left(progress) == (1.0, 0.0)


def test_recordings_that_promise_no_length_have_progress_too() -> None:
    """A broken file dropped into a finished corpus is all there is to do: 0 s of audio, as far as anybody knows."""
    progress = Progress(sessions=2, audio_s=0.0, costs=COSTS)
    progress.item_started(ItemStarted("a", "decode", 0.0))
    assert progress.share is None and not progress.stage_times_real_time
    progress.stage_done(Outcome("a", busy_s={"decode": 1.0}))
    progress.session_done(0.0, 0.0, 0.0)
    assert progress.share == 0.5


def test_a_first_short_session_of_many_is_not_the_whole_run() -> None:
    """No stage has been through enough audio to have a pace."""
    clock = Clock()
    progress = Progress(sessions=24, audio_s=40.0, clock=clock, costs=COSTS)
    for stage in COSTS:
        progress.stage_done(Outcome("a", busy_s={stage: 1.0}, audio_s=2.0))
    progress.session_done(2.0, 0.0, 0.0)
    clock.now = 3.0
    assert progress.share == pytest.approx(2 / 40) and progress.left_s == pytest.approx(3 * 38 / 2)


def test_a_session_of_another_length_than_was_guessed_corrects_the_whole() -> None:
    """The length of what lies behind a URL is guessed from its size."""
    progress = Progress(sessions=2, audio_s=11.0, costs=COSTS)
    progress.session_done(20.0, 0.0, 0.0, planned_s=8.0)
    progress.session_done(3.0, 0.0, 0.0, planned_s=3.0)
    assert (progress.done_s, progress.audio_s) == (23.0, 23.0)


def test_sessions_at_work_count_beside_those_that_are_done() -> None:
    clock = Clock()
    progress = Progress(sessions=4, audio_s=400.0, clock=clock, costs={"a": 1.0})
    progress.item_started(ItemStarted("s1", "a", 0.0))
    progress.item_started(ItemStarted("s2", "a", 0.0))
    clock.now = 10.0
    progress.stage_done(Outcome("s1", busy_s={"a": 10.0}, audio_s=100.0))
    progress.session_done(100.0, 0.0, 0.0)
    progress.item_started(ItemStarted("s2", "a", 50.0))
    assert progress.stages == {"a": (150.0, 20.0)}
    assert progress.share == pytest.approx(150 / 400)
    assert progress.left_s == pytest.approx(10 * 250 / 150)


class Rounds(Stage[StageConfig]):
    """Goes over the segments twice, and over the recordings in between, as `transcribe` does."""

    name = "rounds"
    version = "1"
    config_type = StageConfig

    def __call__(self, session: Session) -> Session:
        self.for_each(session, session.alive(), lambda segment: None)
        self.for_each(session, session.usable(), lambda recording: None)
        self.for_batches(session, session.alive(), lambda segments: None, 2)
        return session


def test_a_stage_tells_how_much_of_the_audio_it_is_through_with(tmp_path: Path) -> None:
    """In seconds of the session's audio, never backwards, to the whole of it at the end."""
    one = session("s", "a.wav", folder=tmp_path)
    one.recordings[0].duration_s = 100.0
    one.segments = [Segment("s-a.wav", i, 20.0 * i, 20.0 * i + 10.0) for i in range(4)]
    seen: list[ItemStarted] = []
    worker = Worker((StageSpec("test_progress:Rounds", StageConfig()),), str(tmp_path / "marks"))
    worker.run(one, marked=True, started=seen.append)
    assert {(item.session_id, item.stage) for item in seen} == {("s", "rounds")}
    assert [item.done_s for item in seen] == [0.0, 0.0, 25.0, 50.0, 75.0, 75.0, 75.0, 75.0, 100.0]
    assert read_mark(mark_path(tmp_path / "marks", "s")) == ("rounds", "", 100.0)


def test_recordings_count_before_there_are_segments(tmp_path: Path) -> None:
    one = session("s", "a.wav", "b.wav", "c.wav", folder=tmp_path)
    for recording, seconds in zip(one.recordings, (10.0, 30.0, 60.0), strict=True):
        recording.duration_s = seconds
    seen: list[ItemStarted] = []
    worker = Worker((StageSpec(TROUBLE, TroubleConfig()),), str(tmp_path / "marks"))
    worker.run(one, marked=False, started=seen.append)
    assert [item.done_s for item in seen] == [0.0, 0.0, 10.0, 40.0, 100.0]


@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_the_driver_hears_of_it(executor: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The second recording is worked on until the driver has heard of it."""
    fates = tmp_path / "fates"
    fates.mkdir()
    (fates / "b.wav").write_text("wait")
    trouble = TroubleConfig(fates=str(fates))
    groups = [StageGroup((StageSpec(TROUBLE, trouble), StageSpec(SECOND, TroubleConfig())))]
    engine: Any = InlineEngine(groups, tmp_path / "marks")
    if executor == "ray":
        request.getfixturevalue("ray_node")
        from pipeline.engine.ray_engine import RayEngine

        engine = RayEngine(groups, tmp_path / "marks", tmp_path / "strikes")
    events = []
    try:
        for event in engine.run(iter([session("s", "a.wav", "b.wav", "c.wav", folder=tmp_path)])):
            events.append(event)
            if isinstance(event, ItemStarted) and event.done_s == 1.0:
                (fates / "b.wav").unlink(missing_ok=True)
    finally:
        engine.close()
    done = [event.done_s for event in events if isinstance(event, ItemStarted) and event.stage == "trouble"]
    assert 1.0 in done and done == sorted(done) and max(done) <= 3.0
    *before, group, last = events
    assert all(isinstance(event, ItemStarted) for event in before)
    assert isinstance(group, GroupDone) and (group.group, group.outcome.session_id) == (groups[0].name, "s")
    assert isinstance(last, SessionDone) and last.session.session_id == "s"


class Gated(Stage[StageConfig]):
    """Works on an item when the gate is open."""

    name = "gated"
    version = "1"
    config_type = StageConfig
    gate = threading.Event()

    def __call__(self, session: Session) -> Session:
        self.for_each(session, session.usable(), self._work)
        return session

    def _work(self, recording: Recording) -> None:
        self.gate.wait()
        recording.duration_s = 1.0


def test_a_run_that_is_broken_off_ends_with_the_item_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = InlineEngine([StageGroup((StageSpec("test_progress:Gated", StageConfig()),))], tmp_path / "marks")
    one = session("s", "a.wav", "b.wav", folder=tmp_path)
    assert next(engine.run([one])) == ItemStarted("s", "gated", 0.0)
    wait = engine._thread.shutdown

    def shutdown(**how: Any) -> None:
        Gated.gate.set()
        wait(**how)

    monkeypatch.setattr(engine._thread, "shutdown", shutdown)
    engine.close()
    assert [recording.duration_s for recording in one.recordings] == [1.0, 0.0] and not one.quarantine


def test_time_limits_are_set_by_stage() -> None:
    groups = load_config(None, ["engine.timeouts={transcribe: 600, segment: 5}", "engine.timeout_s=100"]).groups()
    limits = {spec.name: group.limit_s(spec.name) for group in groups for spec in group.stages}
    assert limits.pop("transcribe") == 600 and limits.pop("segment") == 5 and set(limits.values()) == {100}
    with pytest.raises(SettingsError, match=r"engine.timeouts: no stage transcripe"):
        load_config(None, ["engine.timeouts={transcripe: 600}"]).groups()


def test_a_recording_that_fails_is_passed_too(tmp_path: Path) -> None:
    one = session("s", "raise.wav", "b.wav", folder=tmp_path)
    for recording in one.recordings:
        recording.duration_s = 50.0
    seen: list[ItemStarted] = []
    Worker((StageSpec(TROUBLE, TroubleConfig()),), str(tmp_path)).run(one, False, seen.append)
    assert [item.done_s for item in seen[:3]] == [0.0, 0.0, 50.0] and isinstance(one.recordings[0], Recording)
