"""The file of a ledger: a SQLite database on a local disk, in WAL mode, with every commit forced to the disk."""

from __future__ import annotations

import fcntl
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from annotators.paid.owners import file_system, is_network
from catalogs.files import make_folder, one_line

BUSY_S = 120.0
"""Seconds to wait for a transaction of another process."""
_VERSION = 1
_SCHEMA = """
create table if not exists budget (
    scope text primary key, cap integer, spent integer not null, held integer not null
) without rowid;
create table if not exists requests (
    id text not null, attempt integer not null, scope text not null, vote integer not null, keys integer not null,
    state text not null, hold integer not null, cost integer not null, owner text not null, job text,
    model_version text, usage text, finish text, error text, reserved_at real not null, sent_at real, settled_at real,
    reply blob, primary key (id, attempt)
);
create index if not exists open_requests on requests (state) where state in ('reserved', 'sent');
create table if not exists items (
    key text not null, request text not null, attempt integer not null, vote integer not null, place integer not null,
    primary key (key, request, attempt)
) without rowid;
create index if not exists items_of_request on items (request, attempt);
create table if not exists clips (
    unit text not null, vote integer not null, identity text not null, segment text not null, key text not null,
    added_at real not null, primary key (unit, vote, identity, segment)
) without rowid;
create table if not exists jobs (
    display_name text primary key, scope text not null, name text, state text not null, owner text not null,
    error text, created_at real not null, settled_at real
) without rowid;
"""


class LedgerError(RuntimeError):
    """A ledger cannot be used; the message is one line that says what to do."""


class LedgerFile:
    """One connection to a ledger. Threads take turns.

    Raises LedgerError for a network file system (unless `force`), a damaged file and a file of a newer version.
    """

    def __init__(self, path: str | Path, force: bool = False) -> None:
        self.path = Path(path)
        make_folder(self.path.parent)
        kind = file_system(self.path.parent)
        if is_network(kind) and not force:
            raise LedgerError(
                f"the ledger {self.path} is on a network file system ({kind}), whose locks do not protect a spending cap: "
                "put it on a local disk (--ledger PATH)"
            )
        self._lock = threading.RLock()
        with self._errors():
            self._connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self._prepare()

    def _prepare(self) -> None:
        # FULL: a commit that precedes money must survive a power cut.
        for pragma in ("journal_mode=wal", "synchronous=full", "trusted_schema=off"):
            self._connection.execute(f"pragma {pragma}")
        # One statement sees one moment: another process may be creating the file.
        found, tables = self._connection.execute(
            "select (select user_version from pragma_user_version), (select count(*) from sqlite_master)"
        ).fetchone()
        if found == 0 and tables:
            raise LedgerError(f"{self.path} is a database of another program: give the ledger another path")
        if found > _VERSION:
            raise LedgerError(f"the ledger {self.path} has version {found}, newer than {_VERSION}: update voxmill")
        if found < _VERSION:
            # Several processes may create it at once: every statement is repeatable.
            self._connection.executescript(f"begin immediate; {_SCHEMA} pragma user_version={_VERSION}; commit;")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise LedgerError(
                f"the ledger {self.path} cannot be used ({one_line(error)}): check the disk and the permissions"
            ) from None
        except sqlite3.DatabaseError as error:
            raise self.damaged(one_line(error)) from None

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Run the block as one transaction that no other writer can interleave. It is on the disk when the block ends."""
        with self._lock, self._errors():
            self._connection.execute("begin immediate")
            try:
                yield self._connection
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise

    def rows(self, sql: str, values: Any = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with self._lock, self._errors():
            return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Hold the lock for making files from the ledger: whoever makes a file last has seen all replies before it."""
        with self.path.with_name(f"{self.path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def damaged(self, what: str) -> LedgerError:
        """Return the error for content that cannot be read."""
        return LedgerError(
            f"the ledger {self.path} is damaged ({what}): restore it from a copy; "
            "without it, its replies would be paid for again"
        )

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()
