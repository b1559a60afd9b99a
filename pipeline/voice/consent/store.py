"""The folder of consents: `challenges/<id>.json`, `<id>.json` for each record, and the recording beside it."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from catalogs.files import write_atomically
from pipeline.voice.consent.challenge import ID, Challenge
from pipeline.voice.consent.record import Record

T = TypeVar("T", Challenge, Record)
_MOST_JSON = 1 << 20


class ConsentStore:
    """Challenges and records in a folder. Nothing from outside becomes a path but ids of 16 hex digits."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._challenges = root / "challenges"

    def add_challenge(self, challenge: Challenge) -> None:
        """Store a new challenge."""
        with self._only_writer():
            self._write(self._challenges / f"{challenge.id}.json", challenge)

    def challenge(self, challenge_id: str) -> Challenge:
        """Return a challenge. Raises ValueError if there is none with this id."""
        found = _read(self._challenges / f"{challenge_id}.json", Challenge) if ID.fullmatch(challenge_id) else None
        if found is None:
            raise ValueError(
                f"no challenge {challenge_id[:32]!r} in {self.root}: get a sentence with voxmill consent ask"
            )
        return found

    def only_open(self, now: datetime | None = None) -> Challenge:
        """Return the challenge that waits for its recording. Raises ValueError if there is none, or several."""
        waiting = [one for one in self.challenges() if one.statement_sha256 is None]
        fresh = [one for one in waiting if not one.is_stale(now or datetime.now(UTC))]
        if len(fresh) == 1 or (len(waiting) == 1 and not fresh):
            return (fresh or waiting)[0]
        if fresh:
            listed = ", ".join(f"{one.id} ({one.speaker})" for one in fresh[:4])
            raise ValueError(f"several sentences wait in {self.root}: give --challenge with one of {listed}")
        raise ValueError(f"no sentence waits in {self.root}: get one with voxmill consent ask")

    def challenges(self) -> list[Challenge]:
        """Return all challenges, the latest first."""
        return _all(self._challenges, Challenge, lambda one: one.created)

    def claim(self, challenge_id: str, statement_sha256: str) -> bool:
        """Let a recording use a challenge up. Return False if another recording has done so."""
        with self._only_writer():
            challenge = self.challenge(challenge_id)
            if challenge.statement_sha256 not in (None, statement_sha256):
                return False
            self._write(self._challenges / f"{challenge.id}.json", challenge.used_by(statement_sha256))
        return True

    def add(self, record: Record, recording: bytes | None) -> None:
        """Store a record, and before it the recording that it names."""
        with self._only_writer():
            if record.audio is not None and recording is not None:
                write_atomically(self.root / record.audio, recording)
            self._write(self.root / f"{record.id}.json", record)

    def record(self, record_id: str) -> Record:
        """Return a record. Raises ValueError if there is none with this id."""
        found = _read(self.root / f"{record_id}.json", Record) if ID.fullmatch(record_id) else None
        if found is None:
            raise ValueError(f"no consent {record_id[:32]!r} in {self.root}: see voxmill consent list")
        return found

    def records(self) -> list[Record]:
        """Return all records, the latest first."""
        return _all(self.root, Record, lambda one: one.at)

    def _write(self, path: Path, value: Challenge | Record) -> None:
        write_atomically(path, (json.dumps(asdict(value), ensure_ascii=False, indent=1) + "\n").encode())

    @contextmanager
    def _only_writer(self) -> Iterator[None]:
        """Exclude other processes that change the folder."""
        # Names and voices of people: for nobody else on this machine.
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _all(folder: Path, kind: type[T], order: Any) -> list[T]:
    paths = folder.glob("*.json") if folder.is_dir() else ()
    found = (_read(path, kind) for path in paths if ID.fullmatch(path.stem))
    return sorted((one for one in found if one is not None), key=order, reverse=True)


def _read(path: Path, kind: type[T]) -> T | None:
    """Return the object of a file; None if there is none. Raises ValueError for a file that holds something else."""
    try:
        if path.is_symlink() or path.stat().st_size > _MOST_JSON:
            return None
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        values = None
    known = {field.name for field in fields(kind)}
    try:
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
        return kind(**given)
    except (AttributeError, TypeError):
        raise ValueError(f"{path} is damaged: it is not a {kind.__name__.lower()} of this store") from None
