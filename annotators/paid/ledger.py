"""The ledger of a paid pass: what was asked, answered and spent. It survives kills and holds a cap among any number of processes.

A request is `reserved` (its worst-case price is held), then `sent` (on the disk before the first byte leaves), then `answered`
(the reply is stored, its price is spent), `released` (not billed) or `unknown` (perhaps billed: the whole hold counts as spent).
"""

from __future__ import annotations

import json
import time
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any

from annotators.paid.ledger_file import LedgerError, LedgerFile
from annotators.paid.owners import is_alive, this_process
from annotators.providers.remote import Reply, Tokens
from catalogs.files import one_line

RESERVED, SENT, ANSWERED, RELEASED, UNKNOWN = "reserved", "sent", "answered", "released", "unknown"
OTHER_MODEL = "another model answered"
"""Error of a paid reply that must not be used."""
KILLED = "the process was killed"
"""Error of a request whose process died."""
OPEN_S = 7200.0
"""Seconds after which a request of a process that cannot be seen is taken for dead. No request lasts as long."""
_CHUNK = 500


class Refusal(Enum):
    """Why a request could not be reserved."""

    CAP = "cap"
    """It does not fit under the cap."""
    TAKEN = "taken"
    """A key is being asked by a living process or a job, or was answered in the meantime."""


@dataclass(frozen=True)
class Entry:
    """One request in the history of a key, without its reply."""

    request: str
    attempt: int
    state: str
    keys: int
    """Number of keys that the request asked about."""
    cost: int
    error: str | None
    model_version: str | None
    usage: Tokens | None
    settled_at: float | None


@dataclass(frozen=True)
class Totals:
    """Money of a scope in micro-dollars, and requests by state."""

    cap: int | None
    spent: int
    """With `unknown`."""
    held: int
    unknown: int
    """Holds of requests that may have been billed."""
    requests: Mapping[str, int]


class Ledger(LedgerFile):
    """The requests of one scope (a pass) in a ledger file. Several processes may work on one file.

    Raises LedgerError as `LedgerFile`. `owner` is this process; tests give another.
    """

    def __init__(self, path: str | Path, scope: str, force: bool = False, owner: str | None = None) -> None:
        super().__init__(path, force)
        self.scope = scope
        self.owner = owner or this_process()
        with self.writing() as db:
            # Nothing may be spent before a command gives a cap.
            db.execute("insert or ignore into budget values (?, 0, 0, 0)", (scope,))

    def set_cap(self, cap: int | None) -> None:
        """Store the cap in micro-dollars; None only for a provider that is free. What the scope spent earlier counts."""
        with self.writing() as db:
            db.execute("update budget set cap = ? where scope = ?", (cap, self.scope))

    def recover(self) -> int:
        """Settle the requests of dead processes: reserved ones are released, sent ones become unknown. Return how many.

        Requests of a job stay: the job is collected later, by any process.
        """
        columns = "id, attempt, state, owner, reserved_at"
        open_rows = f"select {columns} from requests where state in ('reserved', 'sent') and job is null"
        newest: dict[str, float] = {}
        for *_, owner, reserved_at in self.rows(open_rows):
            newest[owner] = max(newest.get(owner, 0.0), reserved_at)
        old = time.time() - OPEN_S
        dead = {
            owner
            for owner, reserved_at in newest.items()
            if owner != self.owner and not is_alive(owner, hidden=reserved_at > old)
        }
        if not dead:
            return 0
        with self.writing() as db:
            found = [row for row in db.execute(open_rows) if row[3] in dead]
            for request, attempt, state, *_ in found:
                self._settle(db, request, attempt, UNKNOWN if state == SENT else RELEASED, KILLED)
        return len(found)

    def reserve(self, request: str, keys: Sequence[str], hold: int, expected: int = 0, vote: int = 1) -> int | Refusal:
        """Take the hold of a request, and return the number of its attempt, if it fits under the cap and its keys are free.

        expected: replies that each key has already. A key with more was answered by another process since.
        """
        with self.writing() as db:
            for part in _chunks(keys):
                if self._taken(db, part, expected):
                    return Refusal.TAKEN
            fits = db.execute(
                "update budget set held = held + ? where scope = ? and (cap is null or spent + held + ? <= cap)",
                (hold, self.scope, hold),
            )
            if fits.rowcount == 0:
                return Refusal.CAP
            last = db.execute("select coalesce(max(attempt), 0) from requests where id = ?", (request,)).fetchone()[0]
            db.execute(
                "insert into requests (id, attempt, scope, vote, keys, state, hold, cost, owner, reserved_at) "
                "values (?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
                (request, last + 1, self.scope, vote, len(keys), RESERVED, hold, self.owner, time.time()),
            )
            items = [(key, request, last + 1, vote, place) for place, key in enumerate(keys)]
            db.executemany("insert into items values (?, ?, ?, ?, ?)", items)
            return int(last) + 1

    def _taken(self, db: Any, keys: Sequence[str], expected: int) -> bool:
        """Return True if one of the keys is in an open request, or has more usable replies than expected."""
        marks = ",".join("?" * len(keys))
        found = db.execute(
            "select sum(r.state in ('reserved', 'sent')), sum(r.state = 'answered' and r.error is not ?) "
            f"from items i join requests r on r.id = i.request and r.attempt = i.attempt where i.key in ({marks}) "
            "group by i.key",
            (OTHER_MODEL, *keys),
        )
        return any(is_open or answered > expected for is_open, answered in found)

    def sent(self, request: str, attempt: int) -> None:
        """Note that the request is about to leave. It is on the disk when this returns."""
        with self.writing() as db:
            done = db.execute(
                "update requests set state = 'sent', sent_at = ? where id = ? and attempt = ? and state = 'reserved'",
                (time.time(), request, attempt),
            )
            if done.rowcount != 1:
                raise LedgerError(
                    f"request {request[:12]} in {self.path} is not reserved: another process took it for dead"
                )

    def answer(self, request: str, attempt: int, reply: Reply, cost: int | None, error: str | None = None) -> None:
        """Store a reply before it is parsed. cost in micro-dollars; None (the service did not state its usage): the hold."""
        with self.writing() as db:
            self._settle(db, request, attempt, ANSWERED, error, cost)
            db.execute(
                "update requests set model_version = ?, usage = ?, finish = ?, reply = ? where id = ? and attempt = ?",
                (
                    storable(reply.model_version),
                    json.dumps(asdict(reply.usage)) if reply.usage and reply.usage.possible else None,
                    storable(reply.finish),
                    zlib.compress(reply.raw.encode("utf-8", "surrogatepass")),
                    request,
                    attempt,
                ),
            )

    def release(self, request: str, attempt: int, error: str) -> None:
        """Give back the hold of a request that is not billed."""
        with self.writing() as db:
            self._settle(db, request, attempt, RELEASED, error)

    def lose(self, request: str, attempt: int, error: str) -> None:
        """Count the hold of a request as spent, because it may have been billed."""
        with self.writing() as db:
            self._settle(db, request, attempt, UNKNOWN, error)

    def _settle(
        self, db: Any, request: str, attempt: int, state: str, error: str | None, cost: int | None = None
    ) -> None:
        """Move a request to its last state and its money with it. An unknown one may still be answered; nothing else changes."""
        row = db.execute(
            "select state, hold, cost, scope from requests where id = ? and attempt = ?", (request, attempt)
        ).fetchone()
        if row is None:
            raise LedgerError(f"request {request[:12]} is not in the ledger {self.path}")
        before, hold, spent, scope = row
        if before not in (RESERVED, SENT) and (before, state) != (UNKNOWN, ANSWERED):
            return
        if state == RELEASED:
            now_spent = 0
        else:
            now_spent = hold if cost is None else cost
        db.execute(
            "update budget set held = held - ?, spent = spent + ? where scope = ?",
            (hold if before in (RESERVED, SENT) else 0, now_spent - spent, scope),
        )
        db.execute(
            "update requests set state = ?, cost = ?, error = ?, settled_at = ? where id = ? and attempt = ?",
            (state, now_spent, storable(error), time.time(), request, attempt),
        )

    def history(self, keys: Iterable[str]) -> dict[str, list[Entry]]:
        """Return the requests that asked about each key, oldest first. A key that was never asked about is absent."""
        found: dict[str, list[Entry]] = defaultdict(list)
        for part in _chunks(keys):
            marks = ",".join("?" * len(part))
            for key, usage, *rest in self.rows(
                "select i.key, r.usage, r.id, r.attempt, r.state, r.keys, r.cost, r.error, r.model_version, r.settled_at "
                "from items i join requests r on r.id = i.request and r.attempt = i.attempt "
                f"where i.key in ({marks}) order by r.reserved_at, r.rowid",
                part,
            ):
                request, attempt, state, count, cost, error, model, settled = rest
                tokens = self._tokens(usage) if usage else None
                found[key].append(Entry(request, attempt, state, count, cost, error, model, tokens, settled))
        return dict(found)

    def _tokens(self, usage: str) -> Tokens:
        try:
            return Tokens(**json.loads(usage))
        except (ValueError, TypeError) as error:
            raise self.damaged(f"the usage of a request: {one_line(error)}") from None

    def reply(self, request: str, attempt: int) -> tuple[str, list[str]]:
        """Return a stored reply as received, and the keys that it was asked about, in order. Raises LedgerError without a reply."""
        found = self.rows("select reply from requests where id = ? and attempt = ?", (request, attempt))
        if not found or found[0][0] is None:
            raise LedgerError(f"no reply of request {request[:12]} is in the ledger {self.path}")
        keys = self.rows("select key from items where request = ? and attempt = ? order by place", (request, attempt))
        try:
            return zlib.decompress(found[0][0]).decode("utf-8", "surrogatepass"), [key for (key,) in keys]
        except (zlib.error, ValueError, TypeError) as error:
            raise self.damaged(f"the reply of request {request[:12]}: {one_line(error)}") from None

    def clips(self, unit: str, vote: int, identity: str) -> dict[str, str]:
        """Return the key of each segment of a unit that is known for this identity of a provider."""
        known = "select segment, key from clips where unit = ? and vote = ? and identity = ?"
        return dict(self.rows(known, (unit, vote, identity)))

    def clips_of_any(self, unit: str, vote: int) -> dict[str, list[str]]:
        """Return the keys of each segment of a unit for any identity of a provider, newest first."""
        found: dict[str, list[str]] = defaultdict(list)
        known = "select segment, key from clips where unit = ? and vote = ? order by added_at desc"
        for segment, key in self.rows(known, (unit, vote)):
            found[segment].append(key)
        return dict(found)

    def add_clips(self, unit: str, vote: int, identity: str, keys: Mapping[str, str]) -> None:
        """Store the keys of segments, so that a later run need not decode their audio."""
        now = time.time()
        with self.writing() as db:
            db.executemany(
                "insert or ignore into clips values (?, ?, ?, ?, ?, ?)",
                ((unit, vote, identity, segment, key, now) for segment, key in keys.items()),
            )

    def totals(self) -> Totals:
        """Return the money and the requests of the scope."""
        cap, spent, held = self.rows("select cap, spent, held from budget where scope = ?", (self.scope,))[0]
        states = self.rows(
            "select state, count(*), sum(cost) from requests where scope = ? group by state", (self.scope,)
        )
        unknown = next((cost for state, _, cost in states if state == UNKNOWN), 0)
        return Totals(cap, spent, held, unknown, {state: count for state, count, _ in states})


def storable(text: str | None) -> str | None:
    """Return text that a database or a Parquet file takes: a service may send half of a surrogate pair."""
    return None if text is None else text.encode("utf-8", "replace").decode()


def _chunks(keys: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(keys)
    while part := list(islice(rest, _CHUNK)):
        yield part
