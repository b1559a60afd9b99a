"""Locks of a corpus: one run at a time, and one scratch folder per writer that other processes do not sweep.

Both are `flock` locks. The system releases them when a process dies, so a held lock means a live owner.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import stat
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_LOCK = ".lock"
_FINISH = "finish"


class CorpusError(ValueError):
    """A folder is not a usable corpus; the message is one line that says what to do."""


class CorpusBusyError(RuntimeError):
    """Another process is at work on the corpus; the message is one line that says what to do."""


@dataclass(frozen=True)
class Share:
    """The share of the sessions that one of several runs into a corpus processes: share `number` of `of`, from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """Return the share that a user wrote as 2/4. Raises ValueError with one line that says what is wrong."""
        found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text.strip())
        if found and 1 <= int(found[1]) <= int(found[2]):
            return cls(int(found[1]), int(found[2]))
        raise ValueError(f"a share is written as 2/4 (the second of four), not {text}")

    @property
    def name(self) -> str:
        """`2-of-4`, for file names."""
        return f"{self.number}-of-{self.of}"

    def holds(self, session: str) -> bool:
        """Return True for a session of this share. It depends on the session's name alone, so that sources may be added."""
        digest = hashlib.sha256(session.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


@contextmanager
def only_run(root: str | Path, share: Share | None = None) -> Iterator[None]:
    """Hold the run lock of a corpus: `prepare` and `fsck --repair` never work on it at the same time. With a `share`, hold
    the lock of that share: runs on other shares of the same division may be at work, and no run without a share.

    Each run takes its own lock first and looks at the others' then, so that of two only one, or none, continues. Raises
    CorpusBusyError while another process is at work.
    """
    root = Path(root)
    with (root / (f".lock-{share.name}" if share else _LOCK)).open("a+") as lock:
        if not _taken_alone(lock):
            which = f"share {share} of {root}" if share else root
            raise CorpusBusyError(
                f"another run is at work on {which} (prepare or fsck --repair); wait for it or stop it first"
            )
        busy = shares_at_work(root) - ({share.name} if share else set())
        if share is None and busy:
            raise CorpusBusyError(
                f"runs on shares of {root} are at work ({_listed(busy)}); wait for them or stop them first"
            )
        if share is not None and _held(root / _LOCK):
            raise CorpusBusyError(f"a run without --share is at work on {root}; wait for it or stop it first")
        if share is not None and (other := {name for name in busy if not name.endswith(f"-of-{share.of}")} - {_FINISH}):
            raise CorpusBusyError(
                f"runs on other shares of {root} are at work ({_listed(other)}): all runs must divide it by the same number"
            )
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def shares_at_work(root: str | Path) -> set[str]:
    """Return the names of the shares that runs are at work on now; `finish` for the last one's work on the whole corpus."""
    found = ((path, path.name.removeprefix(f"{_LOCK}-")) for path in Path(root).glob(f"{_LOCK}-*"))
    return {name for path, name in found if _held(path)}


@contextmanager
def last_share(root: str | Path) -> Iterator[bool]:
    """Yield True if no share of a corpus is at work any more, and hold a lock for the work on the whole corpus that the
    last run does. Call it when the share's own lock is released: of several that end together, at least one is the last.

    Waits for another run that does the same work.
    """
    root = Path(root)
    if shares_at_work(root) - {_FINISH}:
        yield False
        return
    with (root / f"{_LOCK}-{_FINISH}").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # A run without a share that began meanwhile does this work itself.
        yield not _held(root / _LOCK)


@contextmanager
def one_at_a_time(root: str | Path) -> Iterator[None]:
    """Wait until no other process is within this block for the same corpus: for files that several runs read and rewrite."""
    with (Path(root) / ".gate").open("a+") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        yield


def run_at_work(root: str | Path) -> bool:
    """Return True if a run holds a lock of the corpus now. Works on a read-only corpus."""
    return _held(Path(root) / _LOCK) or bool(shares_at_work(root))


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(name.replace("-of-", "/") for name in names))


@contextmanager
def own_scratch(tmp: str | Path) -> Iterator[Path]:
    """Make a folder for one writer below `tmp` (absolute path); remove it at the end.

    The file `<name>.lock` beside it is locked while the writer lives: `sweep_scratch` skips a folder with a held lock. The lock is
    taken before the folder is made and removed after the folder, so a folder without a lock has no owner.
    """
    tmp = Path(tmp).absolute()
    folder, lock = _locked_name(tmp)
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            _lock_of(folder).unlink()
        lock.close()


def _locked_name(tmp: Path) -> tuple[Path, IO[bytes]]:
    """Return a new path below `tmp` and its lock file, locked."""
    while True:
        tmp.mkdir(parents=True, exist_ok=True)
        folder = tmp / f"w-{uuid.uuid4().hex[:12]}"
        path = _lock_of(folder)
        with suppress(FileNotFoundError):
            lock = path.open("wb")
            # A sweep may have removed the file between its creation and its lock: then another name is tried.
            if _taken(lock) and path.stat().st_ino == os.fstat(lock.fileno()).st_ino:
                return folder, lock
            lock.close()


def dead_scratch(tmp: str | Path) -> list[Path]:
    """Return the entries of `tmp` without a live owner: folders of killed writers, and files of older versions."""
    return [entry for entry in sorted(Path(tmp).glob("*")) if not _held(_lock_of(entry))]


def sweep_scratch(tmp: str | Path) -> int:
    """Remove what killed writers left in `tmp`; return the bytes freed. Entries of live writers stay."""
    return sum(_sweep(entry) for entry in dead_scratch(tmp))


def _sweep(entry: Path) -> int:
    """Remove one entry unless a writer owns it; return the bytes freed. Another sweep may remove it at the same time."""
    try:
        lock = _lock_of(entry).open("r+b")
    except FileNotFoundError:
        lock = None
    try:
        # The lock is held while its file is removed. A writer that is creating this lock then sees that it must take another name.
        if lock is not None and not _taken(lock):
            return 0
        freed = sum(_file_bytes(path) for path in (entry, *entry.rglob("*")))
        with suppress(FileNotFoundError):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        return freed
    finally:
        if lock is not None:
            lock.close()


def _file_bytes(path: Path) -> int:
    """Return the size of a file; 0 for a folder, a link or a missing file."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _lock_of(entry: Path) -> Path:
    return entry if entry.suffix == ".lock" else entry.with_name(f"{entry.name}.lock")


def _held(lock: Path) -> bool:
    """Return True if a live process holds this lock file. A missing file is not held."""
    try:
        with lock.open("rb") as file:
            return not _taken(file, fcntl.LOCK_SH)
    except OSError:
        return False


def _taken(lock: IO[bytes] | IO[str], kind: int = fcntl.LOCK_EX) -> bool:
    """Take a lock without waiting; closing the file releases it. Return False if another process holds it."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _taken_alone(lock: IO[str]) -> bool:
    """Take the exclusive lock; return False if another process holds it. Wait for shared locks, which checks hold only briefly."""
    while not _taken(lock):
        if not _taken(lock, fcntl.LOCK_SH):
            return False
    return True
