"""Content hashes of the source files: computed in threads with progress messages, and saved as they are computed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

from catalogs.corpus.commit import write_in_corpus
from catalogs.durations import duration_text
from pipeline.inputs.members import HashKey

_THREADS = 8
_BLOCK = 1 << 20
log = logging.getLogger(__name__)

_FIRST_S, _AGAIN_S = 3.0, 30.0
"""Seconds until the first progress message, and between two such messages."""


def known_hashes(root: Path) -> dict[HashKey, str]:
    """Return the hashes of the files that earlier runs into a corpus have read, including those of a killed run."""
    known: dict[HashKey, str] = {}
    if (root / "hashes.json").is_file():
        rows = json.loads((root / "hashes.json").read_text(encoding="utf-8"))
        known = {(path, size, changed): sha256 for path, size, changed, sha256 in rows}
    if _journal(root).is_file():
        for line in _journal(root).read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                path, size, changed, sha256 = json.loads(line)
            except (ValueError, TypeError):
                continue  # the line at which the run was killed, or the end of the file
            known[(path, size, changed)] = sha256
    return known


class KeptHashes(MutableMapping[HashKey, str]):
    """The hashes of a corpus. A new one is written to `hashes.jsonl` before it counts, so that a killed run keeps it.
    `settle` moves them into `hashes.json`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known = known_hashes(root)
        self._lock = threading.Lock()

    def __getitem__(self, key: HashKey) -> str:
        return self._known[key]

    def __setitem__(self, key: HashKey, sha256: str) -> None:
        with self._lock:
            if self._known.get(key) == sha256:
                return
            # A line break before it as well: the journal may end in half a line.
            with _journal(self._root).open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps([*key, sha256])}\n")
            self._known[key] = sha256

    def __delitem__(self, key: HashKey) -> None:
        raise TypeError("what was hashed stays hashed")

    def __iter__(self) -> Iterator[HashKey]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def settle(self) -> None:
        """Write all hashes into one file and remove the journal."""
        if _journal(self._root).is_file():
            text = json.dumps([[*key, sha256] for key, sha256 in self._known.items()])
            write_in_corpus(self._root, self._root / "hashes.json", text.encode())
            _journal(self._root).unlink()


def hash_files(
    paths: Iterable[Path],
    hashes: MutableMapping[HashKey, str],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Add the hash of each file that has none in `hashes`, several at once. Files that cannot be read are left out.

    Progress is logged from time to time if hashing takes long.
    """
    waiting = {key: None for path in paths if (key := file_key(path)) is not None and key not in hashes}
    meter = _Meter(len(waiting), sum(size for _, size, _ in waiting), clock)
    with ThreadPoolExecutor(min(_THREADS, (os.cpu_count() or 1) * 2)) as pool:
        futures = {pool.submit(sha256_of, Path(key[0]), meter.add): key for key in waiting}
        rest = set(futures)
        try:
            while rest:
                done, rest = wait(rest, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in done:
                    if future.exception() is None:
                        hashes[futures[future]] = future.result()
                    meter.files += 1
                if rest and (line := meter.line()):
                    log.info(line)
        finally:
            for future in rest:
                future.cancel()


def file_key(path: Path) -> HashKey | None:
    """Return the key of a file's hash; None if it is not a regular file or cannot be examined."""
    try:
        state = path.stat()
    except OSError:
        return None
    return (str(path), state.st_size, state.st_mtime_ns) if stat.S_ISREG(state.st_mode) else None


def sha256_of(path: Path, read: Callable[[int], None] = lambda count: None) -> str:
    """Return the sha256 of a file's content; `read` is called with the number of bytes of each block."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            read(len(block))
    return digest.hexdigest()


class _Meter:
    """The progress of the hashing."""

    def __init__(self, total: int, total_bytes: int, clock: Callable[[], float]) -> None:
        self.files, self.total, self._total_bytes = 0, total, total_bytes
        self._bytes, self._clock, self._lock = 0, clock, threading.Lock()
        self._started = clock()
        self._next = self._started + _FIRST_S

    def add(self, count: int) -> None:
        with self._lock:
            self._bytes += count

    def line(self) -> str | None:
        """Return a progress message if one is due, otherwise None."""
        now = self._clock()
        if now < self._next:
            return None
        self._next = now + _AGAIN_S
        rate = self._bytes / (now - self._started)
        left = f", {duration_text((self._total_bytes - self._bytes) / rate)} left" if rate else ""
        return (
            f"reading new files: {self.files:,} of {self.total:,} ({self._bytes / 1e9:.1f} of "
            f"{self._total_bytes / 1e9:.1f} GB, {rate / 1e6:.0f} MB/s{left})"
        )


def _journal(root: Path) -> Path:
    return root / "hashes.jsonl"
