"""Questions about clips outside a corpus, asked with the same ledger, cap, limits and retries."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotators.paid.delivery import Delivery
from annotators.paid.ledger import ANSWERED, OTHER_MODEL, Ledger
from annotators.paid.outcomes import is_final, parse
from annotators.paid.pass_options import PassOptions, PassStats, check_cap, tariff_of
from annotators.paid.plan import Planned
from annotators.paid.prices import micro_usd
from annotators.providers.remote import Ask, RemoteProvider


@dataclass(frozen=True)
class Answered:
    """What became of a question. `found`: what the provider's parser returned of the reply; None without an answer that can be
    used. `error`: why there is none. `asked_enough`: whether it is not asked again. `model`: the one that answered."""

    found: Mapping[str, Any] | None
    error: str | None
    asked_enough: bool
    model: str | None


def ask_questions(
    provider: RemoteProvider, asks: Sequence[Ask], ledger_file: Path, options: PassOptions
) -> tuple[dict[str, Answered], PassStats]:
    """Ask what the ledger has no answer to; return what is known of each key, and the counts.

    An answer is paid for once, however often this is called. Raises ValueError without a cap, PriceError for an unknown price,
    PassStoppedError if the service fails for good, LedgerError.
    """
    check_cap(provider, options)
    prices = tariff_of(provider, options)
    prices.at(options.day())
    ledger_file.parent.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(ledger_file, f"{provider.name}@{provider.prompt_version}", options.force_ledger)
    stats = PassStats(provider.name)
    try:
        ledger.set_cap(None if options.cap_usd is None else micro_usd(options.cap_usd))
        ledger.recover()
        known = _known(provider, ledger, asks)
        open_asks = [(ask, replies) for ask in asks for found, replies in [known[ask.key]] if not found.asked_enough]

        async def run() -> None:
            delivery = Delivery(provider, ledger, prices, options, stats)
            try:
                planned = [Planned(request, replies) for ask, replies in open_asks for request in provider.group([ask])]
                await asyncio.gather(*map(delivery.start, planned), return_exceptions=True)
                await delivery.drain()
            finally:
                delivery.close()
                await provider.close()
            delivery.finish()
            if delivery.failure is not None:
                raise delivery.failure
            if delivery.stop is not None:
                raise delivery.stop

        if open_asks:
            asyncio.run(run())
        stats.totals = ledger.totals()
        return {key: found for key, (found, _) in _known(provider, ledger, asks).items()}, stats
    finally:
        ledger.close()


def _known(provider: RemoteProvider, ledger: Ledger, asks: Sequence[Ask]) -> dict[str, tuple[Answered, int]]:
    """Return what the ledger knows of each key, and its number of replies. The newest answer that can be used counts."""
    history = ledger.history(ask.key for ask in asks)
    found: dict[str, tuple[Answered, int]] = {}
    for ask in asks:
        entries = [e for e in history.get(ask.key, []) if e.state == ANSWERED and e.error != OTHER_MODEL]
        best = Answered(None, None, False, None)
        for entry in entries:
            raw, keys = ledger.reply(entry.request, entry.attempt)
            said = parse(provider, raw, keys).get(ask.key, "empty")
            if isinstance(said, str):
                final = is_final(said, len(keys), len(entries))
                best = best if best.found is not None else Answered(None, said, final, entry.model_version)
            else:
                # A dictionary: the parser of a judge returns no description.
                answer: Any = said
                best = Answered(dict(answer), None, True, entry.model_version)
        found[ask.key] = best, len(entries)
    return found
