"""The scheduler under a fake clock: nobody who listens runs dry, nobody starves, no slot is lost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from voxcpm.engine.costs import CostModel
from voxcpm.engine.scheduler import MOST_AHEAD_S, EngineBusyError, Entry, Kind, Scheduler

PATCH_S = 0.16


@dataclass
class World:
    """A machine whose steps take exactly what the cost model says, and listeners who play as they should."""

    scheduler: Scheduler
    now: float = 0.0
    dry: list[int] = field(default_factory=list)  # listeners who ran out of audio
    lengths: dict[int, int] = field(default_factory=dict)  # patches until the model stops
    done: list[int] = field(default_factory=list)

    def submit(self, number: int, kind: Kind, prefill: int, most: int, length: int, deadline_s: float = 1e9) -> bool:
        self.lengths[number] = min(length, most)
        entry = Entry(number, kind, prefill, prefill + most - 1, most, self.now, deadline_s, last_run=self.now)
        try:
            self.scheduler.submit(entry, self.now)
        except EngineBusyError as error:
            assert 1 <= error.retry_after_s <= 60
            return False
        return True

    def step(self) -> bool:
        plan = self.scheduler.plan(self.now)
        assert len(set(plan.run)) == len(plan.run) and set(plan.join) <= set(plan.run)
        if plan.empty:
            return False
        self.now += self.scheduler.costs.seconds(len(plan.run), plan.prefill)
        for entry in self.scheduler.running.values():
            if entry.kind == "live" and entry.started is not None and entry.slack(self.now, PATCH_S) < -1e-9:
                self.dry.append(entry.number)
        ended = [n for n in plan.run if self.scheduler.running[n].patches + 1 >= self.lengths[n]]
        seconds = self.scheduler.costs.seconds(len(plan.run), plan.prefill)
        self.scheduler.ran(plan, seconds, self.now, ended, learn=False)
        self.done += ended
        return True

    def listen(self) -> None:
        """Everybody takes what has been played until now."""
        for entry in self.scheduler.running.values():
            if entry.started is not None:
                self.scheduler.taken(entry.number, max(0.0, self.now - entry.started))

    def check_slots(self) -> None:
        used: dict[int, int] = {}
        for entry in self.scheduler.running.values():
            assert entry.lane is not None and entry.positions <= entry.lane
            used[entry.lane] = used.get(entry.lane, 0) + 1
        for capacity, slots in self.scheduler.lanes.items():
            assert self.scheduler.free[capacity] + used.get(capacity, 0) == slots


COSTS = st.builds(
    CostModel,
    fixed=st.floats(0.001, 0.05),
    per_row=st.floats(0.0005, 0.06),
    per_position=st.floats(1e-6, 4e-4),
)
ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from(["live", "live", "whole"]),
        st.integers(4, 700),  # prefill
        st.integers(1, 120),  # most patches
        st.integers(1, 120),  # until the model stops
        st.integers(0, 12),  # steps before the next arrival
        st.integers(0, 9),  # 0: somebody cancels
    ),
    min_size=1,
    max_size=16,
)


@settings(max_examples=60, deadline=None)
@given(costs=COSTS, arrivals=ARRIVALS, short=st.integers(1, 6), long=st.integers(0, 2))
def test_nobody_runs_dry_nobody_starves_no_slot_is_lost(
    costs: CostModel, arrivals: list[tuple[Kind, int, int, int, int, int]], short: int, long: int
) -> None:
    world = World(Scheduler({512: short, 1024: long + 1}, PATCH_S, costs, queue=100))
    taken: list[int] = []
    gone: set[int] = set()
    for number, (kind, prefill, most, length, pause, fate) in enumerate(arrivals):
        if world.submit(number, kind, prefill, most, length):
            taken.append(number)
        for _ in range(pause):
            world.step()
            world.listen()
            world.check_slots()
        if fate == 0 and taken:
            victim = taken[number % len(taken)]
            world.scheduler.cancel(victim)
            gone.add(victim)
            world.check_slots()
    steps = 0
    while world.step():
        world.check_slots()
        steps += 1
        world.listen()
        assert steps < 60_000, "a request starves"
    assert not world.scheduler.waiting and not world.scheduler.running
    assert set(world.done) | gone >= set(taken)
    assert world.scheduler.free == dict(world.scheduler.lanes)
    if costs.seconds(1) <= world.scheduler.budget_s:
        assert world.dry == [], "a listener ran out of audio"


def test_a_listener_who_takes_nothing_pauses_and_goes_on() -> None:
    world = World(Scheduler({512: 2}, PATCH_S, CostModel(0.001, 0.001), queue=4))
    world.submit(0, "live", 10, 400, 400)
    while world.step():
        pass
    made = world.scheduler.running[0].patches
    assert made * PATCH_S == pytest.approx(MOST_AHEAD_S, abs=2 * PATCH_S)
    world.scheduler.taken(0, 10.0)
    assert world.step()


def test_the_queue_has_an_end_and_a_late_first_audio_is_refused() -> None:
    world = World(Scheduler({512: 1}, PATCH_S, CostModel(0.01, 0.05), queue=2))
    assert world.submit(0, "live", 10, 300, 300, deadline_s=1.0)
    world.step()
    # The slot is taken for about 300 / 2 steps of 0.06 s.
    assert not world.submit(1, "live", 10, 300, 300, deadline_s=1.0)
    assert world.submit(2, "live", 10, 300, 300, deadline_s=60.0)
    assert world.submit(3, "whole", 10, 300, 300)
    assert not world.submit(4, "whole", 10, 300, 300)
    with pytest.raises(ValueError, match="longest lane"):
        world.submit(5, "live", 600, 10, 10)


def test_live_rows_beyond_what_the_machine_carries_wait() -> None:
    # Two rows take 0.13 s of the 0.136 s that a step may take, three would be too slow.
    world = World(Scheduler({512: 8}, PATCH_S, CostModel(0.01, 0.06), queue=10))
    for number in range(3):
        world.submit(number, "live", 10, 50, 50)
    for _ in range(10):
        world.step()
    assert sorted(world.scheduler.running) == [0, 1] and sorted(world.scheduler.waiting) == [2]
    while world.step():
        pass
    assert sorted(world.done) == [0, 1, 2] and not world.dry


def test_a_machine_that_is_slower_than_playback_runs_everybody_at_once() -> None:
    # One after the other would let all but the first wait, and rows that run together are cheaper.
    world = World(Scheduler({512: 8}, PATCH_S, CostModel(0.5, 0.1), queue=10))
    for number in range(4):
        world.submit(number, "live", 10, 5, 5)
    world.step()
    assert len(world.scheduler.running) == 4


def test_a_long_newcomer_waits_until_the_listeners_are_ahead() -> None:
    world = World(Scheduler({2048: 4}, PATCH_S, CostModel(0.02, 0.02, 0.001), queue=10))
    world.submit(0, "live", 10, 200, 200)
    world.step()
    world.submit(1, "live", 1000, 20, 20)  # takes more than a second
    while world.step():
        world.listen()
    assert sorted(world.done) == [0, 1] and not world.dry


def test_a_stall_or_a_paused_listener_keeps_nobody_out() -> None:
    world = World(Scheduler({512: 4}, PATCH_S, CostModel(0.02, 0.03, 0.0001), queue=10))
    world.submit(0, "live", 10, 400, 400)
    for _ in range(3):
        world.step()
    world.now += 10.0  # nothing was made meanwhile, and everything was played
    world.listen()
    world.submit(1, "live", 100, 20, 20)
    world.step()
    assert 1 in world.scheduler.running
    # A listener who stops taking at 30 s ahead and comes back is not late.
    while world.step():
        pass
    assert world.scheduler.running[0].ahead_s(PATCH_S) > MOST_AHEAD_S - 1
    world.now += 60.0
    world.scheduler.taken(0, world.scheduler.running[0].taken_s + 5.0)
    world.submit(2, "live", 100, 20, 20)
    world.step()
    assert 2 in world.scheduler.running


def test_a_whole_request_does_not_wait_for_ever_behind_live_ones() -> None:
    world = World(Scheduler({512: 1}, PATCH_S, CostModel(0.01, 0.02), queue=50))
    world.submit(0, "live", 10, 30, 30)
    world.step()
    world.submit(1, "whole", 10, 30, 30)
    for number in range(2, 40):
        world.submit(number, "live", 10, 30, 30)
    while 1 not in world.done and world.step():
        world.listen()
    assert len(world.done) <= 15, "the whole request waited behind all live ones"


def test_whole_rows_leave_slots_for_live_ones() -> None:
    world = World(Scheduler({512: 4}, PATCH_S, CostModel(0.001, 0.001), queue=20))
    for number in range(6):
        world.submit(number, "whole", 10, 50, 50)
    world.step()
    assert len(world.scheduler.running) == 3
    world.submit(9, "live", 10, 50, 50)
    world.step()
    assert 9 in world.scheduler.running


@settings(max_examples=20, deadline=None)
@given(st.floats(0.001, 0.05), st.floats(0.001, 0.05), st.floats(1e-6, 1e-3), st.integers(0, 99))
def test_costs_are_learned(fixed: float, per_row: float, per_position: float, seed: int) -> None:
    random = Random(seed)
    truth, learned = CostModel(fixed, per_row, per_position), CostModel()
    assert learned.seconds(8) == 0.0
    for step in range(300):
        rows, positions = random.randint(1, 16), random.choice([0, 0, 0, random.randint(1, 512)])
        seconds = truth.seconds(rows, positions)
        # One in twenty is disturbed by something else, after the start.
        learned.observe(rows, positions, seconds * (30 if step > 50 and step % 20 == 0 else 1))
        if step % 20 == 0:
            assert learned.seconds(4) >= 0
    for rows, positions in ((1, 0), (8, 0), (16, 0), (4, 300)):
        assert learned.seconds(rows, positions) <= 2.0 * truth.seconds(rows, positions)
        assert learned.seconds(rows, positions) >= 0.8 * truth.seconds(rows, positions)


def test_a_request_without_a_deadline_is_taken_and_goes_first() -> None:
    world = World(Scheduler({4096: 1}, PATCH_S, CostModel(1.0)))
    assert world.submit(0, "live", 4, 20, 20)
    world.step()
    assert not world.submit(1, "live", 4, 20, 20, deadline_s=1.0)
    assert world.submit(2, "live", 4, 20, 20, deadline_s=60.0)
    assert world.submit(3, "live", 4, 20, 20, deadline_s=math.inf)
    while len(world.done) < 3:
        world.step()
    assert world.done == [0, 3, 2]


@given(
    costs=st.builds(CostModel, fixed=st.floats(0, 0.1), per_row=st.floats(0.0005, 0.3)),
    ahead=st.lists(st.tuples(st.sampled_from(["live", "whole"]), st.integers(0, 6)), min_size=1, max_size=5),
)
@example(costs=CostModel(0.0, 0.0809), ahead=[("live", 1), ("live", 1)])  # both were left out of every step, for ever
def test_while_a_row_runs_some_row_is_always_chosen(costs: CostModel, ahead: list[tuple[Kind, int]]) -> None:
    """Also if steps have become slower than they were at admission, and players hold back some audio."""
    world = World(Scheduler({512: 8}, PATCH_S, CostModel(0.0, 0.001), queue=100))
    for number, (kind, _) in enumerate(ahead):
        world.submit(number, kind, 7, 100, 100)
    while len(world.scheduler.running) < len(ahead) or min(e.patches for e in world.scheduler.running.values()) < 6:
        assert world.step()
    world.scheduler.costs = costs
    world.now += 60.0  # everybody has heard everything but what the player holds back
    last = {number: entry.patches for number, entry in world.scheduler.running.items()}
    for _ in range(200):
        for number, (_, held) in enumerate(ahead):
            if number in world.scheduler.running:
                patches = world.scheduler.running[number].patches
                world.scheduler.taken(number, PATCH_S * max(0, patches - held))
        if not world.scheduler.running:
            break
        assert world.step(), "a row that does not pause is there, and nothing runs"
    left = world.scheduler.running
    assert all(number not in left or left[number].patches > patches for number, patches in last.items())
