"""Limits of a service: requests and tokens per minute, concurrency that adapts, and a breaker for outages."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

BREAK_AFTER = 10
"""Failures in a row that open the breaker."""
PAUSE_S = 60.0


@dataclass(frozen=True)
class Clock:
    """Time in seconds and a way to wait; tests give their own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Bucket:
    """A token bucket: `per_minute` units flow in evenly; takers wait in order. It starts with the units of `burst_s` seconds."""

    def __init__(self, per_minute: float, clock: Clock, burst_s: float = 6.0) -> None:
        if per_minute <= 0:
            raise ValueError(f"a limit is {per_minute} per minute: give a number above 0, or leave it out")
        self._rate = per_minute / 60
        self._most = self._left = max(1.0, self._rate * burst_s)
        self._clock = clock
        self._filled = clock.now()
        self._turn = asyncio.Lock()

    async def take(self, units: float = 1.0) -> None:
        """Wait until `units` are there and take them. More than the bucket holds are taken as a debt once it is full."""
        async with self._turn:
            while self._fill() < min(units, self._most):
                await self._clock.sleep((min(units, self._most) - self._left) / self._rate)
            self._left -= units

    def _fill(self) -> float:
        now = self._clock.now()
        self._left = min(self._most, self._left + (now - self._filled) * self._rate)
        self._filled = now
        # A sleep of the exact time may end one rounding error early.
        return self._left + 1e-9


class Concurrency:
    """How many requests are in flight: it grows by one per round of successes and halves when the service throttles (AIMD)."""

    def __init__(self, start: int, most: int) -> None:
        if not 1 <= start <= most:
            raise ValueError(f"the concurrency starts at {start} of at most {most}: give numbers from 1 on")
        self.limit = float(start)
        self._most = most
        self._running = 0
        self._halved_at = 0
        self._started = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        """Wait for a slot and hold it during the block. Yields the number of the request, for `throttled`."""
        while self._running >= int(self.limit):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                # A turn that was given to a cancelled waiter goes to the next.
                self._wake()
                raise
        self._running += 1
        self._started += 1
        try:
            yield self._started
        finally:
            self._running -= 1
            self._wake()

    def succeeded(self) -> None:
        """Note a success."""
        self.limit = min(self._most, self.limit + 1 / self.limit)
        self._wake()

    def throttled(self, number: int) -> None:
        """Halve the limit, once for all requests that were in flight together. number: as `slot` yielded it."""
        if number > self._halved_at:
            self.limit = max(1.0, self.limit / 2)
            self._halved_at = self._started

    def _wake(self) -> None:
        free = int(self.limit) - self._running
        while free > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1


class Breaker:
    """Stop sending during an outage: after 10 failures in a row wait 60 s, then let one request through."""

    def __init__(self, clock: Clock, after: int = BREAK_AFTER, pause_s: float = PAUSE_S) -> None:
        self._clock, self._after, self._pause_s = clock, after, pause_s
        self._failures = 0
        self._open_until = 0.0
        self._probe = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """Whether requests are held back."""
        return self._failures >= self._after

    @asynccontextmanager
    async def passage(self) -> AsyncIterator[None]:
        """Run the block when the breaker lets it through. After a pause, one block at a time runs until one succeeds."""
        if not self.is_open:
            yield
            return
        async with self._probe:
            if self.is_open and (rest := self._open_until - self._clock.now()) > 0:
                await self._clock.sleep(rest)
            if self.is_open:
                yield
                return
        yield

    def succeeded(self) -> None:
        """Close the breaker."""
        self._failures = 0

    def failed(self) -> None:
        """Note a failure of the service, but not that it throttles."""
        self._failures += 1
        if self._failures >= self._after:
            self._open_until = self._clock.now() + self._pause_s


class Limits:
    """All limits of one service together."""

    def __init__(
        self,
        clock: Clock,
        concurrency: int = 16,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
    ) -> None:
        self.clock = clock
        self.concurrency = Concurrency(min(4, concurrency), concurrency)
        self.breaker = Breaker(clock)
        self._requests = Bucket(requests_per_minute, clock) if requests_per_minute else None
        self._tokens = Bucket(tokens_per_minute, clock) if tokens_per_minute else None
        self._paused_until = 0.0

    @asynccontextmanager
    async def turn(self, tokens: int) -> AsyncIterator[int]:
        """Run the block when every limit allows a request with this number of input tokens. Yields the request's number."""
        async with self.concurrency.slot() as number, self.breaker.passage():
            if self._requests:
                await self._requests.take()
            if self._tokens:
                await self._tokens.take(tokens)
            while (rest := self._paused_until - self.clock.now()) > 0:
                await self.clock.sleep(rest)
            yield number

    def pause(self, seconds: float) -> None:
        """Hold all requests back: the service said when it takes the next one."""
        self._paused_until = max(self._paused_until, self.clock.now() + seconds)
