"""The pass of an annotator that is asked over a network: paid for once, capped, and resumable after a kill at any point."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from os import cpu_count
from pathlib import Path

from annotators.paid.delivery import Delivery
from annotators.paid.ledger import Ledger
from annotators.paid.pass_options import (
    PassOptions,
    PassStats,
    check_cap,
    ledger_path,
    notices,
    pass_name,
    tariff_of,
)
from annotators.paid.plan import Planner, Unit
from annotators.paid.prices import Tariff, micro_usd
from annotators.providers.remote import BatchProvider, RemoteProvider
from catalogs.corpus.damage import check_writable
from catalogs.corpus.reader import Corpus

MOST_OPEN = 64
"""Units that are being asked about or compiled at once. Their number bounds the memory, not the speed."""


def describe_paid(root: str | Path, provider: RemoteProvider, options: PassOptions | None = None) -> PassStats:
    """Describe the chosen segments of a corpus by a service. Memory is constant in the size of the corpus.

    Writes annotations/NAME/<aa>/<unit>.parquet and the ledger beside it. Run again, it asks only about what has no final answer.
    Raises ValueError without a cap for a provider that costs money and PriceError for an unknown price, both before anything is
    sent; PassStoppedError if the service fails for good; LedgerError, CorpusError.
    """
    return asyncio.run(run_pass(root, provider, options or PassOptions()))


async def run_pass(root: str | Path, provider: RemoteProvider, options: PassOptions) -> PassStats:
    """Do the work of `describe_paid` in a running event loop; the provider is closed at the end."""
    try:
        with open_pass(root, provider, options) as (planner, prices):
            if isinstance(provider, BatchProvider):
                from annotators.paid.batches import run_batches

                return await run_batches(planner, provider, prices, options)
            return await _Online(planner, provider, prices, options).run()
    finally:
        await provider.close()


@contextmanager
def open_pass(root: str | Path, provider: RemoteProvider, options: PassOptions) -> Iterator[tuple[Planner, Tariff]]:
    """Check everything that can be checked before money is spent; open the ledger, store the cap, settle what was killed."""
    check_cap(provider, options)
    name = pass_name(provider, options)
    check_writable(root, "annotations")
    prices = tariff_of(provider, options)
    prices.at(options.day())
    if options.say is not None:
        for line in notices(provider, options):
            options.say(line)
    corpus = Corpus(root)
    ledger = Ledger(ledger_path(corpus.path, name, options), name, options.force_ledger)
    pool = ThreadPoolExecutor(max(2, cpu_count() or 2), "clips")
    try:
        ledger.set_cap(None if options.cap_usd is None else micro_usd(options.cap_usd))
        ledger.recover()
        yield Planner(corpus, name, provider, ledger, options, pool), prices
    finally:
        pool.shutdown()
        ledger.close()


def reparse(root: str | Path, provider: RemoteProvider, options: PassOptions | None = None) -> PassStats:
    """Compile the descriptions from the stored replies again, after a change of the parser or the schema. Nothing is asked.

    Replies to an earlier prompt or schema count, too, for segments that have none to the present one.
    """
    options = options or PassOptions(cap_usd=0)
    name = pass_name(provider, options)
    check_writable(root, "annotations")
    corpus = Corpus(root)
    stats = PassStats(name)
    ledger = Ledger(ledger_path(corpus.path, name, options), name, options.force_ledger)
    try:
        with ThreadPoolExecutor(1) as pool:
            planner = Planner(corpus, name, provider, ledger, options, pool)
            for unit in planner.units():
                unit.keys, identity = _best_keys(planner, unit)
                stats.clips += planner.compiled(unit, identity)
        stats.totals = ledger.totals()
    finally:
        ledger.close()
    return stats


def _best_keys(planner: Planner, unit: Unit) -> tuple[dict[str, str], str]:
    """Return for each segment the key whose reply describes it, and the identity that all of them have ("" if they differ).

    The key of the present identity comes first, then the newest.
    """
    identity = planner.provider.identity
    present = planner.ledger.clips(unit.unit, planner.options.vote, identity)
    every = planner.ledger.clips_of_any(unit.unit, planner.options.vote)
    outcomes = planner.outcomes({key for keys in every.values() for key in keys})
    described = {key for key, outcome in outcomes.items() if outcome.description is not None}
    found: dict[str, str] = {}
    for segment, keys in every.items():
        ordered = [present[segment], *keys] if segment in present else keys
        found[segment] = next((key for key in ordered if key in described), ordered[0])
    return found, identity if found == present else ""


class _Online:
    """A pass whose requests are answered at once: a bounded number of requests and units is in flight."""

    def __init__(self, planner: Planner, provider: RemoteProvider, prices: Tariff, options: PassOptions) -> None:
        self._planner = planner
        self._stats = PassStats(planner.name)
        self._delivery = Delivery(provider, planner.ledger, prices, options, self._stats)
        self._progress = options.progress
        self._window = asyncio.Semaphore(2 * options.concurrency + 2)
        self._open: set[asyncio.Task[None]] = set()
        self._again: dict[str, Counter[str]] = {}
        self._errors: list[BaseException] = []

    async def run(self) -> PassStats:
        """Ask about everything, then look once more at units of which others held clips."""
        try:
            await self._walk(None)
            if self._again and not self._delivery.stopped:
                await asyncio.to_thread(self._planner.ledger.recover)
                again, self._again = self._again, {}
                for counts in again.values():
                    self._stats.clips -= counts
                await self._walk(set(again))
            self._stats.totals = await asyncio.to_thread(self._planner.ledger.totals)
        finally:
            self._delivery.close()
        self._delivery.finish()
        if self._delivery.stop is not None:
            self._delivery.stop.stats = self._stats
            raise self._delivery.stop
        return self._stats

    async def _walk(self, only: set[str] | None) -> None:
        try:
            await self._start_units(only)
        except BaseException:
            self._delivery.halt()
            raise
        finally:
            # After an error or Ctrl-C, too: what is in flight is paid for, so it is stored and compiled.
            if self._open:
                await asyncio.wait(self._open)
        if self._errors:
            raise self._errors[0]

    async def _start_units(self, only: set[str] | None) -> None:
        units = self._planner.units(only)
        while (unit := await asyncio.to_thread(next, units, None)) is not None:
            # When the cap is reached, the other units are still counted.
            if self._delivery.stop is not None or self._errors:
                return
            while len(self._open) > MOST_OPEN:
                await asyncio.wait(self._open, return_when=asyncio.FIRST_COMPLETED)
            settled = await asyncio.to_thread(self._planner.settled, unit)
            if settled is not None:
                self._stats.clips += settled
                continue
            tasks: list[asyncio.Task[bool]] = []
            try:
                await self._start_requests(unit, tasks)
            finally:
                finishing = asyncio.create_task(self._finish(unit, tasks))
                self._open.add(finishing)
                finishing.add_done_callback(self._closed)

    def _closed(self, finishing: asyncio.Task[None]) -> None:
        self._open.discard(finishing)
        if not finishing.cancelled() and (error := finishing.exception()) is not None:
            self._errors.append(error)
            self._delivery.halt()

    async def _start_requests(self, unit: Unit, tasks: list[asyncio.Task[bool]]) -> None:
        """Start the requests of a unit, as far as the window has room."""
        slices = self._planner.slices(unit)
        while not self._delivery.stopped and (part := await asyncio.to_thread(next, slices, None)) is not None:
            for planned in part:
                await self._window.acquire()
                task = self._delivery.start(planned)
                task.add_done_callback(lambda _: self._window.release())
                tasks.append(task)

    async def _finish(self, unit: Unit, tasks: list[asyncio.Task[bool]]) -> None:
        """Compile a unit's file when its requests have ended, whether or not one of them failed."""
        results = await asyncio.gather(*tasks, return_exceptions=True)
        if self._delivery.stopped:
            await self._delivery.drain()
        counts = await asyncio.to_thread(self._planner.compiled, unit)
        self._stats.clips += counts
        if unit.held or True in results:
            self._again[unit.unit] = counts
        if self._progress is not None:
            self._progress(self._stats)
        if self._delivery.failure is not None:
            raise self._delivery.failure
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result
