"""Planning is done ahead, in a thread, and its time is seen: clocks and events are injected, nothing is measured."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from train_runs import Runs, losses

from trainer.data.rows import Planned, RowStream
from trainer.data.sample_counts import SampleCounts
from trainer.data.samples import step_maker
from trainer.monitor.reporter import Reporter
from trainer.run import train
from trainer.runtime.metrics import read_metrics
from trainer.runtime.prefetch import Prefetcher

PLANNING_S = 50.0
"""What a slow planner takes for a row, on the clock of these tests."""


class Clock:
    """Stands still unless it is advanced; each reading takes a second, so that no step takes no time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._lock = threading.Lock()

    def advance(self, seconds: float) -> float:
        """Advance the clock by `seconds`; return the new time."""
        with self._lock:
            self.now += seconds
            return self.now

    def __call__(self) -> float:
        return self.advance(1.0)


class OnRequest(Prefetcher):
    """Makes the input of a step when the step asks for it, in the step's thread."""

    def steps(self, make: Callable[[int], Any], steps: Iterable[int]) -> Iterator[Callable[[], Any]]:
        for step in steps:
            yield cache(partial(make, step))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("trainer.step.perf_counter", clock)
    return clock


def slow(monkeypatch: pytest.MonkeyPatch, kind: type, name: str, before: Callable[[], object]) -> None:
    """Let a method do something else first."""
    plain = getattr(kind, name)

    def slowed(self: Any, *given: Any) -> Any:
        before()
        return plain(self, *given)

    monkeypatch.setattr(kind, name, slowed)


def steps_of(output: Path) -> list[dict[str, Any]]:
    return [row for row in read_metrics(output) if "speed/step_s" in row]


@pytest.mark.parametrize("prefetcher", [Prefetcher, OnRequest])
def test_a_slow_planner_shows_in_the_reports(
    runs: Runs, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, prefetcher: type[Prefetcher]
) -> None:
    """Three steps of two rows: their 300 s of planning are in the steps' times, and without a thread in what they waited."""
    monkeypatch.setattr("trainer.loop.Prefetcher", prefetcher)
    config = runs.config(tmp_path / "fast", {"steps": 3})
    train(config)
    fast = steps_of(tmp_path / "fast")
    slow(monkeypatch, RowStream, "__next__", lambda: clock.advance(PLANNING_S))
    train(config.model_copy(update={"output": str(tmp_path / "slow")}))
    slowed = steps_of(tmp_path / "slow")
    # begin, the start of the wait, its end, the report: with the two of `aside`, no more than ten readings.
    assert all(row["speed/step_s"] <= 10 for row in fast)
    assert sum(row["speed/step_s"] for row in slowed) >= 3 * 2 * PLANNING_S
    for before, row in zip(fast, slowed, strict=True):
        assert before["loss/diffusion"] == row["loss/diffusion"]
        assert row["speed/patches_per_s"] * row["speed/step_s"] == pytest.approx(
            before["speed/patches_per_s"] * before["speed/step_s"]
        )
    if prefetcher is OnRequest:
        assert all(row["speed/waited_share"] > 0.9 for row in slowed)


def test_validation_and_checkpoints_are_in_no_steps_time(
    runs: Runs, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, Reporter, "validate_if_due", lambda: clock.advance(1000.0))
    train(runs.config(tmp_path / "out", {"steps": 3}))
    assert all(row["speed/step_s"] <= 10 for row in steps_of(tmp_path / "out"))


def test_what_is_between_steps_is_in_the_next_ones_time(
    runs: Runs, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, Reporter, "step", lambda: clock.advance(1000.0))
    train(runs.config(tmp_path / "out", {"steps": 3}))
    times = [row["speed/step_s"] for row in steps_of(tmp_path / "out")]
    assert times[0] < 1000 < min(times[1:])


def test_a_step_is_planned_while_the_one_before_it_is_computed() -> None:
    """The computing of a step ends only when the next one has been planned, in another thread."""
    planned = [threading.Event() for _ in range(5)]
    threads = set()

    class Rows:
        row = 0

        def __iter__(self) -> Rows:
            return self

        def __next__(self) -> list[Planned]:
            threads.add(threading.get_ident())
            self.row += 1
            return []

        def state(self) -> dict[str, Any]:
            return {"next": self.row}

        def tally(self, rows: object) -> SampleCounts:
            return SampleCounts()

    def prepare(step: int, rows: Sequence[Sequence[Planned]]) -> list[Any]:
        assert len(rows) == 3
        planned[step].set()
        return []

    with Prefetcher() as ahead:
        for step, made in enumerate(ahead.steps(step_maker(Rows(), 3, prepare), range(5))):
            assert made().after == {"next": 3 * (step + 1)} and made() is made()
            if step < 4:
                assert planned[step + 1].wait(60), "the next step is not made while this one is computed"
            if step < 3:
                assert not planned[step + 2].is_set(), "one step ahead, no more"
    assert threads and threading.get_ident() not in threads


def test_what_making_raises_is_raised_where_it_is_asked_for() -> None:
    def make(step: int) -> int:
        if step == 1:
            raise ValueError("no sample fits")
        return step

    with Prefetcher() as ahead:
        steps = ahead.steps(make, range(3))
        assert next(steps)() == 0
        made = next(steps)
        with pytest.raises(ValueError, match="no sample fits"):
            made()


def test_a_thread_gives_the_same_losses(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(runs.config(tmp_path / "ahead", {"steps": 8}, steps=5))
    train(runs.config(tmp_path / "ahead", {"steps": 8}))
    monkeypatch.setattr("trainer.loop.Prefetcher", OnRequest)
    train(runs.config(tmp_path / "plain"))
    assert losses(tmp_path / "ahead") == losses(tmp_path / "plain")
