"""Send requests under a cap, limits and the retry table, and store each reply before it is parsed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from math import ceil
from typing import Any, TypeVar

from annotators.paid.ledger import OTHER_MODEL, Ledger, Refusal
from annotators.paid.limits import Limits
from annotators.paid.outcomes import is_final, parse
from annotators.paid.pass_options import (
    CannotWorkError,
    NoServiceError,
    PassOptions,
    PassStats,
    PassStoppedError,
    other_model,
    stop_of,
)
from annotators.paid.plan import Planned
from annotators.paid.prices import Tariff
from annotators.paid.retries import RULES, Event, charged, event_of, wait_s
from annotators.providers.remote import RemoteError, RemoteProvider, Reply, Request, Tokens, TransientError
from catalogs.files import one_line

UNANSWERED_IN_A_ROW = 5
"""Requests without a reply in a row, all tries included, that stop a pass."""
T = TypeVar("T")


class Delivery:
    """Sends the requests of one pass. `stop` is set when nothing more may be sent; requests in flight are finished."""

    def __init__(
        self, provider: RemoteProvider, ledger: Ledger, tariff: Tariff, options: PassOptions, stats: PassStats
    ) -> None:
        self._provider, self._ledger, self._tariff = provider, ledger, tariff
        self._options, self._stats = options, stats
        self._limits = Limits(
            options.clock, options.concurrency, options.requests_per_minute, options.tokens_per_minute
        )
        # One thread: SQLite serializes its writers anyway.
        self._thread = ThreadPoolExecutor(1, "ledger")
        self._room = asyncio.Condition()
        self._in_flight = 0
        self._margin = 1.0
        self._unanswered = 0
        self._silent = 0
        self._answered = False
        self._asking: set[asyncio.Task[bool]] = set()
        self._transfers: set[asyncio.Task[Any]] = set()
        self._last = ""
        self.stop: PassStoppedError | None = None
        self.failure: BaseException | None = None
        """Error of the ledger that ended the pass: the tasks that would have raised it were cancelled."""
        self.stopped = False
        """Whether nothing more is sent."""

    def start(self, planned: Planned) -> asyncio.Task[bool]:
        """Ask in a task of the running loop; see `ask`. When the pass stops, tasks that only wait are cancelled."""
        task = asyncio.create_task(self.ask(planned))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        return task

    def halt(self, stop: PassStoppedError | None = None) -> None:
        """Send nothing more. What is in flight is finished: it is being paid for."""
        self.stop = self.stop or stop
        if not self.stopped:
            self.stopped = True
            for task in self._asking:
                task.cancel()

    async def drain(self) -> None:
        """Wait until nothing is in flight and every reply is stored."""
        while self._transfers:
            await asyncio.wait(self._transfers)

    async def ledger(self, call: Callable[..., T], *values: Any) -> T:
        """Run a method of the ledger in its thread. It is not interrupted halfway."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, call, *values)
        return await asyncio.shield(future)

    async def ask(self, planned: Planned) -> bool:
        """Ask about clips, and about each alone if the reply of a group does not describe it. Return True if a key was taken."""
        request, replies = planned.request, planned.replies
        outcome = await self._deliver(request, replies)
        if isinstance(outcome, Reply):
            found = await asyncio.to_thread(parse, self._provider, outcome.raw, request.keys)
            said = {ask.key: found.get(ask.key, "empty") for ask in request.asks}
            failed = {key: reason for key, reason in said.items() if isinstance(reason, str)}
            again = {key for key, reason in failed.items() if not is_final(reason, len(request.keys), replies + 1)}
            replies += 1
        elif isinstance(outcome, Event):
            again = set(request.keys)
        else:
            return outcome is Refusal.TAKEN
        alone = [Planned(part, replies) for a in request.asks if a.key in again for part in self._provider.group([a])]
        return any(await asyncio.gather(*map(self.ask, alone)))

    async def _deliver(self, request: Request, replies: int) -> Reply | Refusal | Event | None:
        """Return the stored reply, the event of a group to be split, TAKEN, or None if it got no reply."""
        tried: Counter[Event] = Counter()
        while not self.stopped:
            bound = self._provider.bound(request)
            async with self._limits.turn(bound.text_in + bound.audio_in) as number:
                if self.stopped:
                    return None
                outcome = await self._transfer(request, replies, bound)
                if isinstance(outcome, Reply):
                    self._unanswered = 0
                    self._answered = True
                    self._limits.breaker.succeeded()
                    self._limits.concurrency.succeeded()
                if not isinstance(outcome, RemoteError):
                    return outcome
                event = event_of(outcome)
                tried[event] += 1
                wait = wait_s(event, tried[event], getattr(outcome, "retry_after", None), self._options.rng)
                self._note(event, number, wait, outcome)
            singly = RULES[event].then == "singly"
            if singly and len(request.asks) > 1:
                return event
            if singly or tried[event] > RULES[event].tries:
                self._give_up(event, outcome)
                return None
            await self._options.clock.sleep(wait)
        return None

    async def _transfer(self, request: Request, replies: int, bound: Tokens) -> Reply | RemoteError | Refusal | None:
        """Reserve, send and settle, in a task that a stop of the pass does not interrupt."""
        task = asyncio.create_task(self._transact(request, replies, bound))
        self._transfers.add(task)
        task.add_done_callback(self._transfers.discard)
        return await asyncio.shield(task)

    async def _transact(self, request: Request, replies: int, bound: Tokens) -> Reply | RemoteError | Refusal | None:
        hold = ceil(self._tariff.bound(bound, self._options.day()) * self._margin)
        attempt = await self._reserve(request, replies, hold)
        if not isinstance(attempt, int):
            return attempt
        try:
            await self.ledger(self._ledger.sent, request.id, attempt)
            self._stats.requests += 1
            return await self._send(request, attempt, hold)
        except BaseException as error:
            # A ledger that cannot store this reply (a full disk) will not store the next: it must not be paid for.
            self.failure = self.failure or error
            self.halt()
            raise
        finally:
            async with self._room:
                self._in_flight -= 1
                self._room.notify_all()

    async def _reserve(self, request: Request, replies: int, hold: int) -> int | Refusal | None:
        """Take the hold. If the cap leaves no room, wait for requests in flight: they cost less than they hold."""
        async with self._room:
            while not self.stopped:
                found = await self.ledger(
                    self._ledger.reserve, request.id, request.keys, hold, replies, self._options.vote
                )
                if isinstance(found, int):
                    self._in_flight += 1
                if found is not Refusal.CAP:
                    return found
                if self._in_flight == 0:
                    self._stats.cap_reached = True
                    self.halt()
                    return None
                await self._room.wait()
        return None

    async def _send(self, request: Request, attempt: int, hold: int) -> Reply | RemoteError:
        """Send once and settle in the ledger."""
        day = self._options.day()
        try:
            reply = await self._provider.send(request)
        except RemoteError as error:
            event = event_of(error)
            sent = isinstance(error, TransientError) and error.sent
            lost = charged(event, sent, self._options.charge_errors)
            settle = self._ledger.lose if lost else self._ledger.release
            await self.ledger(settle, request.id, attempt, f"{event.value}: {one_line(error)}")
            return error
        except BaseException as error:
            # Only the type: the message of an unknown exception may hold a key.
            await self.ledger(self._ledger.lose, request.id, attempt, f"{Event.LOST.value}: {type(error).__name__}")
            if isinstance(error, Exception):
                self.halt(
                    CannotWorkError(
                        f"the provider {self._provider.name} failed with {type(error).__name__}: report this"
                    )
                )
                return RemoteError(type(error).__name__)
            raise
        await self._store(request, attempt, hold, reply, day)
        return reply

    async def _store(self, request: Request, attempt: int, hold: int, reply: Reply, sent: date) -> None:
        cost = self._tariff.cost(reply.usage, sent, self._options.day())
        other = self._provider.answered_by_another(reply.model_version)
        if other and cost is not None:
            # Its price is not known here, so the whole hold is counted.
            cost = max(cost, hold)
        await self.ledger(self._ledger.answer, request.id, attempt, reply, cost, OTHER_MODEL if other else None)
        if cost is not None and cost > hold > 0:
            # The worst case was too low: from now on more is held.
            self._stats.underestimated += 1
            self._margin = max(self._margin, self._margin * cost / hold)
        if other:
            self.halt(other_model(reply.model_version, self._provider.model))

    def _note(self, event: Event, number: int, wait: float, error: RemoteError) -> None:
        """Tell the limits of a failure, and stop the pass if the table says so."""
        if event is Event.THROTTLED:
            self._limits.concurrency.throttled(number)
            self._limits.pause(wait)
        elif event in (Event.OVERLOADED, Event.UNREACHABLE):
            self._limits.breaker.failed()
        elif (stop := stop_of(event, error)) is not None:
            self.halt(stop)

    def _give_up(self, event: Event, error: RemoteError) -> None:
        self._unanswered += 1
        self._silent += event is not Event.REFUSED
        self._last = one_line(error)
        if self._unanswered >= UNANSWERED_IN_A_ROW:
            self.halt(self._no_service(f"{self._unanswered} requests in a row got no reply"))

    def finish(self) -> None:
        """Set `stop` if requests were sent and none was answered: few clips end before UNANSWERED_IN_A_ROW."""
        if self._silent and not self._answered:
            self.stop = self.stop or self._no_service("no request got a reply")

    def _no_service(self, fault: str) -> NoServiceError:
        return NoServiceError(f"{fault} ({self._last}): check the service, then run the same command again")

    def close(self) -> None:
        """End the ledger's thread."""
        self._thread.shutdown()
