"""Options, counts and errors of a pass that asks a service."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import ClassVar

from annotators.paid.clips import Chosen
from annotators.paid.ledger import Totals
from annotators.paid.limits import Clock
from annotators.paid.prices import Tariff, tariff, today, usd
from annotators.paid.retries import Event
from annotators.providers.remote import BatchProvider, RemoteError, RemoteProvider
from catalogs.files import one_line
from catalogs.words import counted

LEDGER = "ledger.sqlite"
"""File in the folder of a pass, unless the options name another."""


@dataclass(frozen=True)
class PassOptions:
    """How a pass asks. Money in USD."""

    cap_usd: float | None = None
    """The most that the pass may spend, with what it spent earlier. Required unless the provider is free; with a cap, a free
    provider counts as one that costs money."""
    limit: int | None = None
    """The most clips to ask about in this run."""
    vote: int = 1
    """Number of the question: another one asks about the same clips again."""
    name: str | None = None
    """Folder below annotations/. Default: KIND@PROMPT VERSION, with the model if it is not the default one."""
    chosen: Chosen | None = None
    """Which of the kept segments to describe. Default: all."""
    concurrency: int = 16
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    requests_per_day: float | None = None
    """Only for the estimate: a service that is used up for the day ends the pass with QuotaUsedError."""
    poll_s: float | None = None
    """Seconds between looks at running batch jobs. Default: return when the jobs are created; a later run collects them."""
    charge_errors: bool = False
    """Whether the service bills replies with an error status."""
    prices: Path | None = None
    """A price table whose entries come before those of prices.toml."""
    ledger: Path | None = None
    """Default: ledger.sqlite in the folder of the pass."""
    force_ledger: bool = False
    """Whether the ledger may be on a network file system."""
    say: Callable[[str], None] | None = None
    """Called at the start with each line that the user should know before money is spent."""
    progress: Callable[[PassStats], None] | None = None
    """Called with the counts so far when a unit has been compiled."""
    clock: Clock = field(default_factory=Clock)
    day: Callable[[], date] = today
    rng: random.Random = field(default_factory=random.Random)


@dataclass
class PassStats:
    """Counts of a run. `clips` are the chosen clips by status (ok, blocked, failed, unasked), with those of earlier runs."""

    name: str
    clips: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    """Requests sent by this run."""
    cap_reached: bool = False
    underestimated: int = 0
    """Replies that cost more than their worst case."""
    jobs_running: int = 0
    """Batch jobs that a later run collects."""
    totals: Totals | None = None

    @property
    def line(self) -> str:
        """The counts as one line for the log."""
        words = ", ".join(f"{self.clips[kind]} {kind}" for kind in ("ok", "blocked", "failed", "unasked"))
        line = f"{self.name}: {words}; {counted(self.requests, 'request')}"
        if self.totals is not None:
            spent = f"; spent {usd(self.totals.spent)}"
            unknown = f", of it {usd(self.totals.unknown)} perhaps not billed" if self.totals.unknown else ""
            left = "" if self.totals.cap is None else f", cap {usd(self.totals.cap)}"
            line += spent + unknown + left
        if self.underestimated:
            line += f"; {self.underestimated} of the replies cost more than their worst case"
        return line + (" (cap reached: raise it to continue)" if self.cap_reached else "")


class PassStoppedError(RuntimeError):
    """A pass stopped before its end; what was answered is stored. The message is one line that says what to do."""

    stats: PassStats | None = None
    exit_status: ClassVar[int]
    """Status of a command that ends so."""


class QuotaUsedError(PassStoppedError):
    """A quota of the service is used up for longer than minutes."""

    exit_status = 3


class OtherModelError(PassStoppedError):
    """Another model answered than the one that was asked for."""

    exit_status = 4


class CannotWorkError(PassStoppedError):
    """No request can succeed: a bad key, an unknown model."""

    exit_status = 5


class NoServiceError(PassStoppedError):
    """Several requests in a row got no reply."""

    exit_status = 6


def stop_of(event: Event, error: RemoteError) -> PassStoppedError | None:
    """Return the error that ends a pass after this outcome of a call, or None if the pass continues."""
    if event is Event.QUOTA:
        return QuotaUsedError(f"the quota is used up ({one_line(error)}): run the same command again later")
    if event is Event.FATAL:
        return CannotWorkError(f"{one_line(error)}: correct it, then run the same command again")
    return None


def other_model(answered: str | None, asked: str) -> OtherModelError:
    """Return the error for a model (its name, None if it has none) that answered instead of the one that was asked."""
    return OtherModelError(
        f"{answered or 'an unnamed model'} answered instead of {asked}: its answers are not used; "
        "ask for a model that the service still has"
    )


def tariff_of(provider: RemoteProvider, options: PassOptions) -> Tariff:
    """Return the prices that a pass counts with. Raises PriceError for a model without a price.

    A service that looks free but gets a cap may be a proxy of one that bills: then everything is counted.
    """
    tier = "batch" if isinstance(provider, BatchProvider) else "standard"
    return tariff(provider.model, tier, free=is_free(provider, options), extra=options.prices)


def is_free(provider: RemoteProvider, options: PassOptions) -> bool:
    """Return True if nothing that the pass asks is counted as money."""
    return provider.free and options.cap_usd is None


def pass_name(provider: RemoteProvider, options: PassOptions) -> str:
    """Return the folder of a pass below annotations/. Raises ValueError for a name that is not a plain folder name."""
    vote = f"-vote{options.vote}" if options.vote > 1 else ""
    other = "" if provider.model == provider.default_model else f"-{_plain(provider.model)}"
    name = options.name or f"{provider.kind or provider.name}@{provider.prompt_version}{other}{vote}"
    if not re.fullmatch(r"(?!tmp)[a-z][A-Za-z0-9_.@-]*", name) or name in ("none", "duplicates"):
        raise ValueError(
            f"the pass has the name {name!r}: use letters, digits and _ - . @, and begin with a small letter"
        )
    return name


def ledger_path(root: Path, name: str, options: PassOptions) -> Path:
    """Return the path of the ledger of a pass over the corpus `root`."""
    return options.ledger or root / "annotations" / name / LEDGER


def _plain(model: str) -> str:
    """Return a model's name, without its publisher, as a part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", model.rsplit("/", 1)[-1])


def notices(provider: RemoteProvider, options: PassOptions) -> list[str]:
    """Return what the user should know before a pass starts, a line each."""
    free = [
        f"{provider.name} counts as free here: no spending is counted and no cap holds. If its service bills you, give --cap-usd"
    ]
    return [*(free if is_free(provider, options) else []), *provider.warnings()]


def check_cap(provider: RemoteProvider, options: PassOptions) -> None:
    """Raise ValueError if a provider that costs money has no cap."""
    if options.cap_usd is None and not provider.free:
        raise ValueError(
            f"{provider.name} costs money: give the most that this pass may spend in all, e.g. --cap-usd 5 "
            "(--dry-run shows the price)"
        )
