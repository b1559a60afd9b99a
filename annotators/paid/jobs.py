"""Batch jobs in the ledger: a job is noted before it is created, so that a kill at any point creates none twice."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from annotators.paid.ledger import Ledger
from annotators.paid.owners import is_alive

CREATING, RUNNING, DONE, FAILED = "creating", "running", "done", "failed"


@dataclass(frozen=True)
class Job:
    """A job. name: the service's name, None while it is being created."""

    display_name: str
    name: str | None
    state: str
    owner: str
    created_at: float

    @property
    def day(self) -> date:
        """Day (UTC) on which its creation began."""
        return datetime.fromtimestamp(self.created_at, UTC).date()


def start_job(ledger: Ledger, display_name: str, requests: Sequence[tuple[str, int]]) -> None:
    """Note that a job is about to be created with reserved requests (id, attempt), which thereby are sent."""
    now = time.time()
    with ledger.writing() as db:
        db.execute(
            "insert into jobs (display_name, scope, state, owner, created_at) values (?, ?, ?, ?, ?)",
            (display_name, ledger.scope, CREATING, ledger.owner, now),
        )
        db.executemany(
            "update requests set state = 'sent', sent_at = ?, job = ? where id = ? and attempt = ? and state = 'reserved'",
            ((now, display_name, request, attempt) for request, attempt in requests),
        )


def set_job(ledger: Ledger, display_name: str, state: str, name: str | None = None, error: str | None = None) -> None:
    """Move a job to a state; `name` once it is known."""
    with ledger.writing() as db:
        db.execute(
            "update jobs set state = ?, name = coalesce(?, name), error = ?, settled_at = ? where display_name = ?",
            (state, name, error, time.time(), display_name),
        )


def jobs_of(ledger: Ledger, state: str) -> list[Job]:
    """Return the jobs of the ledger's scope in a state, oldest first."""
    rows = ledger.rows(
        "select display_name, name, state, owner, created_at from jobs where scope = ? and state = ? order by created_at",
        (ledger.scope, state),
    )
    return [Job(*row) for row in rows]


def claim_jobs(ledger: Ledger) -> list[Job]:
    """Take over the jobs that dead processes, or this one earlier, were creating, and return them."""
    claimed = []
    for job in jobs_of(ledger, CREATING):
        if job.owner != ledger.owner and is_alive(job.owner):
            continue
        with ledger.writing() as db:
            taken = db.execute(
                "update jobs set owner = ? where display_name = ? and owner = ? and state = ?",
                (ledger.owner, job.display_name, job.owner, CREATING),
            )
            if taken.rowcount == 1:
                claimed.append(job)
    return claimed


def requests_of(ledger: Ledger, display_name: str) -> list[tuple[str, int, list[str]]]:
    """Return (id, attempt, keys in order) of the open requests of a job, in the order in which they were reserved."""
    rows = ledger.rows(
        "select id, attempt from requests where job = ? and state = 'sent' order by rowid", (display_name,)
    )
    key = "select key from items where request = ? and attempt = ? order by place"
    return [(request, attempt, [k for (k,) in ledger.rows(key, (request, attempt))]) for request, attempt in rows]
