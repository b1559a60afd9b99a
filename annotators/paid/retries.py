"""What follows each outcome of a request: one table of tries, waits and money."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from annotators.providers.remote import FatalError, QuotaError, RefusedError, RemoteError, TransientError

LONGEST_WAIT_S = 60.0
LONGEST_PAUSE_S = 900.0
"""A service that wants a longer pause than this has used up a quota: the pass stops."""
_OVERLOADED = (408, 500, 502, 503, 504)


class Event(Enum):
    """Outcome of a request."""

    UNREACHABLE = "no connection"
    THROTTLED = "too many requests"
    OVERLOADED = "the service failed"
    LOST = "the connection broke after sending"
    REFUSED = "the request was refused"
    QUOTA = "a quota is used up"
    FATAL = "no request can succeed"
    OTHER_MODEL = "another model answered"
    INVALID = "the answer does not parse"
    CUT_OFF = "the answer was cut off"
    BLOCKED = "the answer was blocked"


@dataclass(frozen=True)
class Rule:
    """What follows an event.

    tries: further tries. wait: backoff (full jitter, 1 to 60 s), stated (as long as the service asks for, plus up to 20 %), or a
    number of seconds. money: what becomes of the hold. then: ask the same again, ask about each clip alone, or stop the pass.
    """

    tries: int
    wait: Literal["backoff", "stated"] | float
    money: Literal["release", "unknown", "paid"]
    then: Literal["same", "singly", "stop"]


RULES: dict[Event, Rule] = {
    Event.UNREACHABLE: Rule(5, "backoff", "release", "same"),
    Event.THROTTLED: Rule(8, "stated", "release", "same"),
    Event.OVERLOADED: Rule(5, "backoff", "release", "same"),
    Event.LOST: Rule(1, 2.0, "unknown", "same"),
    Event.REFUSED: Rule(1, 0.0, "release", "singly"),
    Event.QUOTA: Rule(0, 0.0, "release", "stop"),
    Event.FATAL: Rule(0, 0.0, "release", "stop"),
    Event.OTHER_MODEL: Rule(0, 0.0, "paid", "stop"),
    Event.INVALID: Rule(1, 0.0, "paid", "singly"),
    Event.CUT_OFF: Rule(1, 0.0, "paid", "singly"),
    Event.BLOCKED: Rule(1, 0.0, "paid", "singly"),
}
"""A block of a clip that was asked about alone, and a refusal of one, are final: only a group is split."""


def event_of(error: RemoteError) -> Event:
    """Return the event that an error of a provider stands for."""
    if isinstance(error, TransientError):
        if not error.sent and (error.retry_after or 0.0) > LONGEST_PAUSE_S:
            return Event.QUOTA
        if error.status == 429:
            return Event.THROTTLED
        if error.status in _OVERLOADED:
            return Event.OVERLOADED
        return Event.LOST if error.sent else Event.UNREACHABLE
    known = {RefusedError: Event.REFUSED, QuotaError: Event.QUOTA, FatalError: Event.FATAL}
    # An unknown error may have cost money.
    return next((event for kind, event in known.items() if isinstance(error, kind)), Event.LOST)


def event_of_reason(reason: str) -> Event:
    """Return the event of a clip that a reply does not describe (the reasons of `RemoteProvider.parse`)."""
    if reason.startswith("blocked"):
        return Event.BLOCKED
    return Event.CUT_OFF if reason == "max_tokens" else Event.INVALID


def wait_s(event: Event, tried: int, retry_after: float | None, rng: random.Random) -> float:
    """Return the seconds to wait before a further try. tried: tries that met this event before, at least 1."""
    wait = RULES[event].wait
    backoff = rng.uniform(0.0, min(LONGEST_WAIT_S, 2.0**tried))
    if wait == "backoff":
        return max(backoff, retry_after or 0.0)
    if wait == "stated":
        return retry_after * rng.uniform(1.0, 1.2) if retry_after else backoff
    assert not isinstance(wait, str)
    return wait


def charged(event: Event, sent: bool, charge_errors: bool) -> bool:
    """Return True if the hold of a failed request counts as spent: it may have been billed.

    charge_errors: whether the service bills replies with an error status.
    """
    if event in (Event.THROTTLED, Event.OVERLOADED, Event.REFUSED):
        return charge_errors
    return sent if event is Event.UNREACHABLE else RULES[event].money == "unknown"
