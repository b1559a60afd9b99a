"""What a paid pass would cost and how long it would take, without asking anything."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

from annotators.paid.clips import units_of
from annotators.paid.ledger import Ledger
from annotators.paid.outcomes import outcome_of, parser_of
from annotators.paid.pass_options import PassOptions, ledger_path, pass_name, tariff_of
from annotators.paid.prices import Price, Tariff, usd
from annotators.providers.remote import Ask, RemoteProvider, Request, Tokens
from annotators.questions.models import TOKENS_PER_SECOND
from catalogs.corpus.reader import Corpus
from catalogs.durations import duration_text

OUT_PER_CLIP = 520
"""Output tokens expected per clip: 370 of attributes and captions in two languages, 150 of thoughts in a shared request."""
OUT_PER_REQUEST = 250
"""Thoughts expected per request beside those."""
TEXT_SHARE = 0.35
"""Expected input text against its upper bound, which counts a token for each byte: English has about four bytes a token, JSON
and Chinese about three."""
REPLY_S = 8.0
"""Seconds expected until a reply."""
_GROUPED = 4096
"""Clips that are grouped at once."""


@dataclass
class Estimate:
    """Sums over the requests that a pass would still send. Money in micro-dollars."""

    price: Price
    clips: int = 0
    audio_s: float = 0.0
    requests: int = 0
    worst_tokens: Tokens = field(default_factory=Tokens)
    expected_tokens: Tokens = field(default_factory=Tokens)
    worst: int = 0
    expected: int = 0
    answered: int = 0
    """Clips with a final answer already, or in a request that has been sent, e.g. of a batch job."""
    seconds: float = 0.0
    """Time at the limits given."""
    days: float = 0.0
    """The same in days, with a limit of requests per day."""

    @property
    def lines(self) -> list[str]:
        """The estimate as lines for the screen."""
        tokens = self.expected_tokens
        return [
            f"{self.clips:,} clips to ask about ({duration_text(self.audio_s)}), {self.answered:,} are answered",
            f"{self.requests:,} requests; expected tokens: {tokens.text_in:,} text, {tokens.audio_in:,} audio, {tokens.out:,} out",
            f"price: expected {usd(self.expected)}, worst case {usd(self.worst)}",
            f"time at these limits: {duration_text(self.seconds)}"
            + (f" ({self.days:.1f} days)" if self.days > 1 else ""),
            self.price.words,
        ]


def estimate(root: str | Path, provider: RemoteProvider, options: PassOptions | None = None) -> Estimate:
    """Return what `describe_paid` would still ask. No audio is decoded, nothing is sent or written.

    Clips are counted as answered only if an earlier run knows them. Raises PriceError for an unknown price, CorpusError.
    """
    options = options or PassOptions()
    prices = tariff_of(provider, options)
    corpus = Corpus(root)
    name = pass_name(provider, options)
    path = ledger_path(corpus.path, name, options)
    found = Estimate(prices.at(options.day()))
    ledger = Ledger(path, name, options.force_ledger) if path.is_file() else None
    try:
        waiting: list[Ask] = []
        for ask in _asks(found, corpus, provider, ledger, options):
            waiting.append(ask)
            if len(waiting) >= _GROUPED:
                _add(found, provider, prices, options, waiting)
                waiting = []
        _add(found, provider, prices, options, waiting)
    finally:
        if ledger is not None:
            ledger.close()
    _set_time(found, options)
    return found


def _asks(
    found: Estimate, corpus: Corpus, provider: RemoteProvider, ledger: Ledger | None, options: PassOptions
) -> Iterator[Ask]:
    """Yield the clips that are not answered, without audio, up to the limit of the options."""
    left = options.limit
    for unit, places in units_of(corpus, options.chosen):
        final = set() if ledger is None else _final(ledger, provider, options, unit)
        for place in places:
            if not place.chosen:
                continue
            if place.segment_id in final:
                found.answered += 1
                continue
            if left is not None and left <= 0:
                continue
            left = None if left is None else left - 1
            key = hashlib.sha256(place.segment_id.encode()).hexdigest()
            yield Ask(key, place.segment_id, place.speaker, place.language, place.seconds, b"")


def _final(ledger: Ledger, provider: RemoteProvider, options: PassOptions, unit: str) -> set[str]:
    """Return the segments of a unit that are not asked about again."""
    keys = ledger.clips(unit, options.vote, provider.identity)
    parsed = parser_of(ledger, provider)
    history = ledger.history(set(keys.values()))
    outcomes = {key: outcome_of(key, entries, parsed) for key, entries in history.items()}
    left_alone = {key for key, outcome in outcomes.items() if outcome.final or outcome.is_open}
    return {segment for segment, key in keys.items() if key in left_alone}


def _add(found: Estimate, provider: RemoteProvider, prices: Tariff, options: PassOptions, asks: Sequence[Ask]) -> None:
    """Add the requests about some clips."""
    if not asks:
        return
    day = options.day()
    for request in provider.group(asks):
        worst = provider.bound(request)
        expected = _expected(request, worst)
        found.clips += len(request.asks)
        found.requests += 1
        found.audio_s += sum(ask.seconds for ask in request.asks)
        found.worst_tokens = _sum(found.worst_tokens, worst)
        found.expected_tokens = _sum(found.expected_tokens, expected)
        found.worst += prices.bound(worst, day)
        found.expected += prices.at(day).cost(expected)


def _expected(request: Request, worst: Tokens) -> Tokens:
    out = min(worst.out, OUT_PER_REQUEST + OUT_PER_CLIP * len(request.asks))
    audio = min(worst.audio_in, ceil(TOKENS_PER_SECOND * sum(ask.seconds for ask in request.asks)))
    return Tokens(text_in=ceil(worst.text_in * TEXT_SHARE), audio_in=audio, out=out)


def _sum(one: Tokens, other: Tokens) -> Tokens:
    return Tokens(
        one.text_in + other.text_in,
        one.audio_in + other.audio_in,
        one.cached_in + other.cached_in,
        one.out + other.out,
    )


def _set_time(found: Estimate, options: PassOptions) -> None:
    tokens_in = found.expected_tokens.text_in + found.expected_tokens.audio_in
    found.seconds = max(
        found.requests * REPLY_S / options.concurrency,
        60 * found.requests / (options.requests_per_minute or float("inf")),
        60 * tokens_in / (options.tokens_per_minute or float("inf")),
    )
    by_day = found.requests / (options.requests_per_day or float("inf"))
    found.days = max(found.seconds / 86_400, float(ceil(by_day)) if by_day > 1 else 0.0)
