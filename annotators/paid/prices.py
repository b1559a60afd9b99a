"""Prices of models by day, from prices.toml. Money is an integer number of micro-dollars (1e-6 USD), rounded up."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import cache
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

from annotators.providers.remote import Tokens
from catalogs.files import one_line

MICRO = 1_000_000
"""Micro-dollars per dollar."""
MOST_RATE = 1_000_000
"""Micro-dollars per token; a higher price is a slip."""
TABLE = Path(__file__).with_name("prices.toml")
_VERSION = re.compile(r"-(\d{3,}|\d{2}-\d{4}|\d{2}-\d{2}|\d{4}-\d{2}-\d{2}|latest)")
"""What may follow a model's name without making it another model: a version, a date."""


class PriceError(ValueError):
    """A price is unknown or a price table is wrong; the message is one line that says what to do."""


@dataclass(frozen=True)
class Price:
    """Price of one model in one tier from `first` to `last` day (inclusive, None: open). Micro-dollars per token."""

    model: str
    tier: str
    in_text: Fraction
    in_audio: Fraction
    cached: Fraction
    out: Fraction
    first: date | None = None
    last: date | None = None
    as_of: date | None = None

    def cost(self, tokens: Tokens) -> int:
        """Return the price of tokens in micro-dollars, rounded up. Cached tokens are text first: prompts begin so."""
        cached_text = min(tokens.cached_in, tokens.text_in)
        cached_audio = min(tokens.cached_in - cached_text, tokens.audio_in)
        exact = (
            (tokens.text_in - cached_text) * self.in_text
            + (tokens.audio_in - cached_audio) * self.in_audio
            + (cached_text + cached_audio) * self.cached
            + tokens.out * self.out
        )
        return ceil(exact)

    def covers(self, day: date) -> bool:
        """Return True if the price is in force on a day."""
        return (self.first is None or self.first <= day) and (self.last is None or day <= self.last)

    @property
    def words(self) -> str:
        """The price as one line."""
        if self is FREE:
            return "free (served by yourself)"
        span = (
            f"{'from ' + str(self.first) + ' ' if self.first else ''}{'until ' + str(self.last) if self.last else ''}"
        )
        rates = f"text {float(self.in_text):g}, audio {float(self.in_audio):g}, output {float(self.out):g}"
        return f"{self.model} ({self.tier}) {span.strip() or 'any day'}: {rates} USD per million tokens, as of {self.as_of}"


FREE = Price("free", "standard", Fraction(0), Fraction(0), Fraction(0), Fraction(0))
"""Price of a model that is served by oneself."""


@dataclass(frozen=True)
class Tariff:
    """The prices of one model in one tier over time."""

    model: str
    tier: str
    prices: tuple[Price, ...]

    def at(self, day: date) -> Price:
        """Return the price on a day (UTC). Raises PriceError if none is in force."""
        for price in self.prices:
            if price.covers(day):
                return price
        spans = "; ".join(price.words for price in self.prices)
        raise PriceError(
            f"{self.model} has no price on {day} ({spans}): choose another model, or add a [[price]] to a file for --prices"
        )

    def cost(self, tokens: Tokens | None, sent: date, today: date, days: int = 1) -> int | None:
        """Return the most that a reply's usage may cost if it was billed on any day from `sent` to `today`, at most `days` later.

        None if the usage is not stated or cannot be, or if the price ended while the reply was on its way.
        """
        last = min(max(sent, today), sent + timedelta(days=days))
        prices = self._between(sent, last)
        if tokens is None or not tokens.possible or not any(price.covers(last) for price in prices):
            return None
        return max(price.cost(tokens) for price in prices)

    def bound(self, tokens: Tokens, day: date, days: int = 1) -> int:
        """Return the most that tokens may cost if the request is sent on a day and billed at most `days` later (UTC)."""
        prices = {self.at(day), *self._between(day, day + timedelta(days=days))}
        return max(price.cost(tokens) for price in prices)

    def _between(self, first: date, last: date) -> list[Price]:
        """Return the prices in force on a day of a span. A day has the first price of the list that covers it."""
        days = (first + timedelta(days=n) for n in range((last - first).days + 1))
        found = (next((price for price in self.prices if price.covers(day)), None) for day in days)
        return list(dict.fromkeys(price for price in found if price is not None))


def tariff(model: str, tier: str = "standard", *, free: bool = False, extra: Path | None = None) -> Tariff:
    """Return the prices of a model. extra: a table of the same form whose prices come first.

    Raises PriceError if the model is unknown in this tier and not `free`.
    """
    if free:
        return Tariff(model, tier, (FREE,))
    known = (*(_read(extra) if extra else ()), *_read(TABLE))
    named = [price for price in known if _same_model(model, price.model)]
    found = tuple(price for price in named if price.tier == tier)
    if not found:
        raise PriceError(_unknown(model, tier, named, known))
    return Tariff(model, tier, found)


def _unknown(model: str, tier: str, named: Sequence[Price], known: Sequence[Price]) -> str:
    """Return what to do about a model without a price in a tier."""
    if named:
        what, have = f"no {tier} price", f"it has a price as {', '.join(sorted({p.tier for p in named}))}"
    else:
        # Those of the same maker are what the user may want instead.
        maker = model.rsplit("/", 1)[-1].lower().partition("-")[0]
        models = {p.model for p in known if p.tier == tier}
        same = {name for name in models if name.partition("-")[0] == maker}
        what, have = "no price", f"models with one: {', '.join(sorted(same or models))}"
    return (
        f"{what} of {model} is known, so no cap could be kept ({have}). Choose another, or add a [[price]] with model, tier, "
        "in_text, in_audio and out (USD per million tokens, from the price page of the service) to a file for --prices"
    )


def known_prices() -> tuple[Price, ...]:
    """Return the prices of prices.toml, in the order of the file."""
    return _read(TABLE)


def usd(micro: int) -> str:
    """Return micro-dollars as text in dollars."""
    return f"${micro / MICRO:,.4f}" if abs(micro) < MICRO else f"${micro / MICRO:,.2f}"


def micro_usd(dollars: float) -> int:
    """Return dollars as micro-dollars, rounded down: a cap must not grow. Raises ValueError for a negative or endless amount."""
    if not 0 <= dollars < 1e9:
        raise ValueError(f"the cap is {dollars} USD: give an amount between 0 and 1e9")
    return int(Fraction(str(dollars)) * MICRO)


def today() -> date:
    """Return the day in UTC."""
    return datetime.now(UTC).date()


def _same_model(asked: str, known: str) -> bool:
    """Return True if `asked` is `known`, perhaps with a publisher before it or a version after it."""
    name = asked.rsplit("/", 1)[-1].lower()
    return name == known or (name.startswith(known) and _VERSION.fullmatch(name[len(known) :]) is not None)


@cache
def _read(path: Path) -> tuple[Price, ...]:
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Fraction)["price"]
        prices = tuple(_price(row) for row in rows)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise PriceError(f"the price table {path} cannot be read ({one_line(error)}): correct it") from None
    _check_spans(path, prices)
    return prices


def _price(row: dict[str, Any]) -> Price:
    names = {"model", "from", "until", "tier", "in_text", "in_audio", "cached", "out", "as_of"}
    if unknown := row.keys() - names:
        raise ValueError(f"unknown key {sorted(unknown)[0]}")
    rates: dict[str, Any] = {name: Fraction(row[name]) for name in ("in_text", "in_audio", "out")}
    rates["cached"] = Fraction(row.get("cached", max(rates["in_text"], rates["in_audio"])))
    if not all(0 <= rate <= MOST_RATE for rate in rates.values()):
        raise ValueError(f"a price of {row['model']} is not between 0 and {MOST_RATE} USD per million tokens")
    return Price(
        model=str(row["model"]).lower(),
        tier=str(row.get("tier", "standard")),
        **rates,
        first=row.get("from"),
        last=row.get("until"),
        as_of=row.get("as_of"),
    )


def _check_spans(path: Path, prices: Sequence[Price]) -> None:
    """Raise PriceError if two prices of one model and tier are in force on the same day."""
    for model, tier in {(price.model, price.tier) for price in prices}:
        spans = _sorted_spans(p for p in prices if (p.model, p.tier) == (model, tier))
        for (_, last), (first, _) in pairwise(spans):
            if first <= last:
                raise PriceError(f"the price table {path} has two {tier} prices of {model} on {first}: correct it")


def _sorted_spans(prices: Iterable[Price]) -> list[tuple[date, date]]:
    return sorted((price.first or date.min, price.last or date.max) for price in prices)
