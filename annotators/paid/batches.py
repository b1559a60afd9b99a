"""The pass of a provider that takes files of requests: jobs are created once, collected later, and compiled like other replies."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

from annotators.paid.jobs import DONE, FAILED, RUNNING, Job, claim_jobs, jobs_of, requests_of, set_job, start_job
from annotators.paid.ledger import OTHER_MODEL, Refusal
from annotators.paid.pass_options import (
    CannotWorkError,
    NoServiceError,
    OtherModelError,
    PassOptions,
    PassStats,
    PassStoppedError,
    QuotaUsedError,
    other_model,
    stop_of,
)
from annotators.paid.plan import Planned, Planner
from annotators.paid.prices import Tariff
from annotators.paid.retries import RULES, event_of, wait_s
from annotators.providers.remote import (
    Ask,
    BatchProvider,
    FatalError,
    JobFailedError,
    RefusedError,
    RemoteError,
    Reply,
    Request,
    TransientError,
)
from catalogs.files import one_line

JOB_BYTES = 128 << 20
"""Audio of one job: it is held in memory while the job is created. Services refuse several large files in a row."""
JOB_REQUESTS = 2000
LONGEST_DAYS = 3
"""Days (UTC) after the first on which a job may be worked on: it ends after 48 hours."""
T = TypeVar("T")


async def run_batches(planner: Planner, provider: BatchProvider, prices: Tariff, options: PassOptions) -> PassStats:
    """Finish jobs that were being created, collect the ready ones, create new ones; with `poll_s`, until all are collected.

    Raises PassStoppedError as `describe_paid`.
    """
    batches = _Batches(planner, provider, prices, options)
    stats = batches.stats
    try:
        await batches.resume()
        await batches.collect()
        await batches.submit()
        while stats.jobs_running and options.poll_s is not None:
            await options.clock.sleep(options.poll_s)
            if await batches.collect():
                await batches.submit()
    except PassStoppedError as stop:
        stop.stats = stats
        raise
    finally:
        stats.totals = planner.ledger.totals()
    return stats


class _Batches:
    def __init__(self, planner: Planner, provider: BatchProvider, prices: Tariff, options: PassOptions) -> None:
        self._planner, self._provider, self._prices, self._options = planner, provider, prices, options
        self._ledger = planner.ledger
        self.stats = PassStats(planner.name)

    async def resume(self) -> None:
        """Finish the creation of jobs whose process was killed. The service is asked for the job first."""
        for job in claim_jobs(self._ledger):
            rows = requests_of(self._ledger, job.display_name)
            if not rows:
                # It was given up, and the process was killed before it noted that.
                set_job(self._ledger, job.display_name, FAILED)
                continue
            name = await self._retried(lambda job=job: self._provider.find_job(job.display_name))  # type: ignore[misc]
            if name is None:
                requests = await asyncio.to_thread(self._rebuilt, rows)
                if requests is None:
                    self._drop(job.display_name, "the corpus lost its clips")
                    continue
                name = await self._created(job.display_name, requests)
            set_job(self._ledger, job.display_name, RUNNING, name)

    def _rebuilt(self, rows: list[tuple[str, int, list[str]]]) -> list[Request] | None:
        """Return the requests of a job, with their audio, or None if a clip is gone."""
        wanted = {key for _, _, keys in rows for key in keys}
        asks: dict[str, Ask] = {}
        for unit in self._planner.units():
            known = self._ledger.clips(unit.unit, self._options.vote, self._planner.provider.identity)
            places = [place for place in unit.places if known.get(place.segment_id) in wanted - asks.keys()]
            asks |= {ask.key: ask for ask in self._planner.asks(places)}
            if wanted <= asks.keys():
                return [Request(request, tuple(asks[key] for key in keys)) for request, _, keys in rows]
        return None

    async def collect(self) -> bool:
        """Store the replies of jobs that are ready. Return True if there was one. The number of the others is in the counts."""
        running = jobs_of(self._ledger, RUNNING)
        self.stats.jobs_running = len(running)
        other: OtherModelError | None = None
        for job in running:
            assert job.name is not None
            name = job.name
            try:
                found = await self._retried(lambda name=name: self._provider.collect(name))  # type: ignore[misc]
            except JobFailedError as error:
                for request, attempt, _ in requests_of(self._ledger, job.display_name):
                    self._ledger.lose(request, attempt, f"the job failed: {one_line(error)}")
                set_job(self._ledger, job.display_name, FAILED, error=one_line(error))
            else:
                if found is None:
                    continue
                for request, attempt, _ in requests_of(self._ledger, job.display_name):
                    other = await asyncio.to_thread(self._settle, job, request, attempt, found.get(request)) or other
                set_job(self._ledger, job.display_name, DONE)
            self.stats.jobs_running -= 1
        if other is not None:
            raise other
        return self.stats.jobs_running < len(running)

    def _settle(self, job: Job, request: str, attempt: int, result: Reply | str | None) -> OtherModelError | None:
        """Settle one request of a job. Return an error if another model answered."""
        if result is None:
            self._ledger.lose(request, attempt, "missing from the results of its job")
        elif isinstance(result, str):
            self._ledger.release(request, attempt, result)
        else:
            cost = self._prices.cost(result.usage, job.day, self._options.day(), LONGEST_DAYS)
            other = self._provider.answered_by_another(result.model_version)
            self._ledger.answer(request, attempt, result, cost, OTHER_MODEL if other else None)
            return other_model(result.model_version, self._provider.model) if other else None
        return None

    async def submit(self) -> None:
        """Create jobs for what has no answer yet, and compile the units that were answered."""
        self.stats.clips = Counter()
        waiting: list[tuple[Request, int]] = []
        size = 0
        planner = self._planner
        units = planner.units()
        while (unit := await asyncio.to_thread(next, units, None)) is not None:
            settled = await asyncio.to_thread(planner.settled, unit)
            if settled is not None:
                self.stats.clips += settled
                continue
            slices = planner.slices(unit)
            while not self.stats.cap_reached and (part := await asyncio.to_thread(next, slices, None)) is not None:
                for planned in part:
                    attempt = await asyncio.to_thread(self._reserve, planned)
                    if attempt is None:
                        continue
                    waiting.append((planned.request, attempt))
                    size += sum(len(ask.audio) for ask in planned.request.asks)
                    if len(waiting) >= JOB_REQUESTS or size >= JOB_BYTES:
                        await self._start(waiting)
                        waiting, size = [], 0
            self.stats.clips += await asyncio.to_thread(planner.compiled, unit)
        if waiting:
            await self._start(waiting)

    def _reserve(self, planned: Planned) -> int | None:
        if self.stats.cap_reached:
            return None
        request = planned.request
        hold = self._prices.bound(self._provider.bound(request), self._options.day(), LONGEST_DAYS)
        found = self._ledger.reserve(request.id, request.keys, hold, planned.replies, self._options.vote)
        self.stats.cap_reached = found is Refusal.CAP
        return found if isinstance(found, int) else None

    async def _start(self, waiting: list[tuple[Request, int]]) -> None:
        rows = [(request.id, attempt) for request, attempt in waiting]
        digest = hashlib.sha256(repr((self._planner.name, rows)).encode()).hexdigest()
        display_name = f"voxmill-{digest[:40]}"
        await asyncio.to_thread(start_job, self._ledger, display_name, rows)
        name = await self._created(display_name, [request for request, _ in waiting])
        set_job(self._ledger, display_name, RUNNING, name)
        self.stats.requests += len(rows)
        self.stats.jobs_running += 1

    async def _created(self, display_name: str, requests: list[Request]) -> str:
        """Create a job, or find it if an earlier try created it without our hearing of it."""
        tried = unsure = False

        async def once() -> str:
            nonlocal tried, unsure
            # Creation is not idempotent: after a failed try, the job may exist.
            found = await self._provider.find_job(display_name) if tried else None
            tried = True
            try:
                return found or await self._provider.create_job(display_name, requests)
            except TransientError:
                unsure = True
                raise
            except RefusedError as error:
                raise FatalError(f"a job was refused ({one_line(error)})") from None

        try:
            return await self._retried(once)
        except (QuotaUsedError, CannotWorkError) as stop:
            # A job that may exist is looked for by the next run, otherwise it would be paid for and created again.
            if not unsure:
                self._drop(display_name, str(stop))
            raise

    def _drop(self, display_name: str, error: str) -> None:
        """Release the requests of a job that was not created."""
        for request, attempt, _ in requests_of(self._ledger, display_name):
            self._ledger.release(request, attempt, error)
        set_job(self._ledger, display_name, FAILED, error=error)

    async def _retried(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call the service, with the tries and waits of the retry table. Raises PassStoppedError."""
        tried: Counter[object] = Counter()
        while True:
            try:
                return await call()
            except JobFailedError:
                raise
            except RemoteError as error:
                event = event_of(error)
                if (stop := stop_of(event, error)) is not None:
                    raise stop from None
                tried[event] += 1
                if tried[event] > RULES[event].tries:
                    text = f"the service does not take or return jobs ({one_line(error)}): run the same command again later"
                    raise NoServiceError(text) from None
                wait = wait_s(event, tried[event], getattr(error, "retry_after", None), self._options.rng)
                await self._options.clock.sleep(wait)
