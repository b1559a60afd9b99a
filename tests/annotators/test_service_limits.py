"""Limits and the retry table, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.paid.limits import Breaker, Bucket, Clock, Concurrency, Limits
from annotators.paid.retries import RULES, Event, charged, event_of, event_of_reason, wait_s
from annotators.providers.remote import FatalError, QuotaError, RefusedError, RemoteError, TransientError

T = TypeVar("T")


class Hands:
    """A clock that moves only when nothing else can: it jumps to the next sleeper's time."""

    def __init__(self) -> None:
        self.time = 0.0
        self.sleeps: list[float] = []
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.time, self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.time + seconds, woken))
        await woken

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end, moving the clock when all wait."""

        async def drive() -> T:
            task = asyncio.ensure_future(work)
            while not task.done():
                for _ in range(20):
                    await asyncio.sleep(0)
                self._sleepers.sort(key=lambda sleeper: sleeper[0])
                if not task.done() and self._sleepers:
                    at, woken = self._sleepers.pop(0)
                    self.time = max(self.time, at)
                    if not woken.done():
                        woken.set_result(None)
            return await task

        return asyncio.run(drive())


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 600), st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_a_bucket_never_gives_more_than_its_rate(per_minute: int, units: list[int]) -> None:
    hands = Hands()
    times: list[float] = []

    async def takers() -> None:
        bucket = Bucket(per_minute, hands.clock)

        async def taker(amount: int) -> None:
            await bucket.take(amount)
            times.append(hands.time)

        await asyncio.gather(*map(taker, units))

    hands.run(takers())
    # Takers wait in order. What was taken before the last one flowed in, except what the bucket held at first.
    first = max(1.0, per_minute / 10)
    given_before = 0.0
    for amount, time in zip(units, times, strict=True):
        assert given_before <= first + time * per_minute / 60 + 1e-6
        given_before += amount
    assert times == sorted(times)
    assert hands.time <= sum(units) * 60 / per_minute + 1e-6


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="0 per minute"):
        Bucket(0, Clock())
    with pytest.raises(ValueError, match="concurrency"):
        Concurrency(1, 0)


def test_no_more_run_at_once_than_allowed_and_throttling_halves_it_once_per_round() -> None:
    most = 0

    async def main() -> None:
        nonlocal most
        concurrency = Concurrency(8, 8)
        running = 0

        async def one(throttle: bool) -> None:
            nonlocal running, most
            async with concurrency.slot() as number:
                running += 1
                most = max(most, running)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                if throttle:
                    concurrency.throttled(number)
                running -= 1

        await asyncio.gather(*(one(False) for _ in range(40)))
        assert most == 8
        # Eight in flight together are throttled: that is one signal, not eight.
        await asyncio.gather(*(one(True) for _ in range(8)))
        assert concurrency.limit == 4
        most = 0
        await asyncio.gather(*(one(False) for _ in range(40)))
        assert most == 4
        for _ in range(100):
            concurrency.succeeded()
        assert concurrency.limit == 8

    asyncio.run(main())


def test_a_cancelled_waiter_does_not_take_a_slot_with_it() -> None:
    async def main() -> None:
        concurrency = Concurrency(1, 1)
        entered: list[str] = []

        async def one(name: str, hold: asyncio.Event) -> None:
            async with concurrency.slot():
                entered.append(name)
                await hold.wait()

        release = asyncio.Event()
        first = asyncio.create_task(one("first", release))
        await asyncio.sleep(0)
        second, third = (asyncio.create_task(one(name, release)) for name in ("second", "third"))
        await asyncio.sleep(0)
        # The slot becomes free and the second is cancelled in the same turn of the loop.
        release.set()
        await first
        second.cancel()
        await third
        assert entered[-1] == "third"

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_breaker_pauses_after_ten_failures_and_lets_one_probe_through() -> None:
    hands = Hands()

    async def main() -> None:
        breaker = Breaker(hands.clock)
        for _ in range(9):
            breaker.failed()
        assert not breaker.is_open
        breaker.failed()
        assert breaker.is_open
        passed: list[tuple[float, int]] = []
        inside = 0

        async def one() -> None:
            nonlocal inside
            async with breaker.passage():
                inside += 1
                passed.append((hands.time, inside))
                await hands.sleep(1)
                # The first probe fails, the second works.
                if len(passed) == 1:
                    breaker.failed()
                else:
                    breaker.succeeded()
                inside -= 1

        await asyncio.gather(*(one() for _ in range(5)))
        assert passed[0] == (60, 1) and passed[1] == (121, 1)
        assert not breaker.is_open and all(time >= 122 for time, _ in passed[2:])

    hands.run(main())


def test_a_stated_pause_holds_everybody_back() -> None:
    hands = Hands()

    async def main() -> None:
        limits = Limits(hands.clock, concurrency=8)
        limits.pause(30)
        times = []

        async def one() -> None:
            async with limits.turn(10):
                times.append(hands.time)

        await asyncio.gather(*(one() for _ in range(4)))
        assert times == [30.0] * 4

    hands.run(main())


TABLE = [
    (TransientError("refused", sent=False), Event.UNREACHABLE, 5, "release", "same"),
    (TransientError("slow down", sent=False, status=429, retry_after=3), Event.THROTTLED, 8, "release", "same"),
    (TransientError("oh", sent=False, status=500), Event.OVERLOADED, 5, "release", "same"),
    (TransientError("oh", sent=True, status=503), Event.OVERLOADED, 5, "release", "same"),
    (TransientError("late", sent=False, status=408), Event.OVERLOADED, 5, "release", "same"),
    (TransientError("drop", sent=True), Event.LOST, 1, "unknown", "same"),
    (TransientError("half", sent=True, status=200), Event.LOST, 1, "unknown", "same"),
    (RefusedError("bad"), Event.REFUSED, 1, "release", "singly"),
    (QuotaError("day"), Event.QUOTA, 0, "release", "stop"),
    (TransientError("hours", sent=False, status=429, retry_after=4000), Event.QUOTA, 0, "release", "stop"),
    (FatalError("key"), Event.FATAL, 0, "release", "stop"),
    (RemoteError("what"), Event.LOST, 1, "unknown", "same"),
]


@pytest.mark.parametrize(("error", "event", "tries", "money", "then"), TABLE)
def test_the_table_says_what_follows_an_error(
    error: RemoteError, event: Event, tries: int, money: str, then: str
) -> None:
    rule = RULES[event]
    assert event_of(error) is event and (rule.tries, rule.money, rule.then) == (tries, money, then)


def test_the_table_says_what_follows_a_reply_that_does_not_describe() -> None:
    reasons = {
        "blocked:SAFETY": Event.BLOCKED,
        "max_tokens": Event.CUT_OFF,
        "mismatch": Event.INVALID,
        "invalid: x": Event.INVALID,
        "empty": Event.INVALID,
    }
    for reason, event in reasons.items():
        assert event_of_reason(reason) is event
        assert (RULES[event].tries, RULES[event].money, RULES[event].then) == (1, "paid", "singly")


@given(st.integers(1, 12), st.floats(0.1, 800), st.integers())
def test_waits_have_full_jitter_and_honor_what_the_service_asks_for(tried: int, asked: float, seed: int) -> None:
    rng = random.Random(seed)
    assert 0 <= wait_s(Event.OVERLOADED, tried, None, rng) <= min(60, 2**tried)
    assert asked <= wait_s(Event.OVERLOADED, tried, asked, rng) <= max(asked, min(60, 2**tried))
    assert asked <= wait_s(Event.THROTTLED, tried, asked, rng) <= asked * 1.2
    assert 0 <= wait_s(Event.THROTTLED, tried, None, rng) <= 60
    assert wait_s(Event.LOST, tried, None, rng) == 2 and wait_s(Event.INVALID, tried, None, rng) == 0


def test_waits_differ() -> None:
    rng = random.Random(1)
    waits = [wait_s(Event.UNREACHABLE, 4, None, rng) for _ in range(200)]
    assert min(waits) < 2 and max(waits) > 14


def test_errors_cost_nothing_unless_the_service_bills_them() -> None:
    for event in (Event.THROTTLED, Event.OVERLOADED, Event.REFUSED):
        assert not charged(event, False, False) and charged(event, False, True)
    assert charged(Event.LOST, True, False) and not charged(Event.UNREACHABLE, False, True)
    assert not charged(Event.QUOTA, False, True) and not charged(Event.FATAL, False, True)
