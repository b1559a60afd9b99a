"""Content hashes of the source files: computed in threads, and saved as they are computed."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from catalogs.corpus.history import read_hashes
from pipeline.inputs.members import HashKey, HashTable
from pipeline.inputs.telling import Meter

_BLOCK = 1 << 20
_FILES, _BYTES = 64, 32 << 20
"""Files and bytes of one task of a thread: a task for every small file would cost more than reading it."""


_AHEAD = 64
"""Tasks per thread that are waiting or done before the groups that they belong to are asked for."""

Group = TypeVar("Group")


class KeptHashes:
    """The hashes of a corpus. A new one is appended to a file of the corpus before it counts, so that a killed run keeps
    it.

    `share`: name of the share of the sources that this run works on ("2-of-4"), which has its own file: two machines must
    not append to one. What is held per file are 16 bytes of its key's digest and 32 bytes of its content's. Without `keep`, nothing
    is written.
    """

    def __init__(self, root: Path, share: str | None = None, keep: bool = True) -> None:
        self._keep = keep
        self._path = root / (f"hashes-{share}.jsonl" if share else "hashes.jsonl")
        self._known = {
            _short((path, size, changed)): bytes.fromhex(sha) for path, size, changed, sha in read_hashes(root)
        }
        self._lock = threading.Lock()
        self._file: int | None = None

    def __contains__(self, key: object) -> bool:
        return _short(key) in self._known

    def __getitem__(self, key: HashKey) -> str:
        return self._known[_short(key)].hex()

    def __setitem__(self, key: HashKey, sha256: str) -> None:
        short, content = _short(key), bytes.fromhex(sha256)
        with self._lock:
            if self._known.get(short) == content:
                return
            if self._file is None and self._keep:
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            # A line break before it as well: the file may end in half a line.
            line = f"\n{json.dumps([*key, sha256])}\n".encode()
            while line and self._file is not None:
                line = line[os.write(self._file, line) :]
            self._known[short] = content

    def __len__(self) -> int:
        return len(self._known)

    def close(self) -> None:
        """Force what was written to the disk and close the file."""
        with self._lock:
            if self._file is not None:
                os.fsync(self._file)
                os.close(self._file)
                self._file = None


def hash_threads() -> int:
    """Return how many files are read at once: two for each core, because half of the time is spent waiting for a disk."""
    return min(32, max(4, 2 * len(os.sched_getaffinity(0))))


def hash_files(keys: Iterable[HashKey], hashes: HashTable, meter: Meter | None = None) -> None:
    """Add the hash of each file that has none in `hashes`, several at once. Files that cannot be read are left out.

    `meter` counts the files and bytes that are read.
    """
    meter, keys = meter or Meter(), list(keys)
    expect_new(keys, hashes, meter)
    for _ in hash_ahead(_tasks(keys), lambda task: task, hashes, meter):
        pass


def expect_new(keys: Iterable[HashKey], hashes: HashTable, meter: Meter) -> None:
    """Tell the meter how many files have no hash yet, and their bytes."""
    sizes = [key[1] for key in keys if key not in hashes]
    meter.expect(len(sizes), sum(sizes))


def hash_ahead(
    groups: Iterable[Group], keys_of: Callable[[Group], Iterable[HashKey]], hashes: HashTable, meter: Meter
) -> Iterator[Group]:
    """Yield the groups in order, each when the hashes of its files are in `hashes`, while threads read on ahead.

    `meter` counts what is read, but must know before what will be (`expect_new`). Files that cannot be read are left
    out. How far the threads are ahead is bounded, so that a listing may be endless.
    """
    stopped = threading.Event()
    threads = hash_threads()
    pool = ThreadPoolExecutor(threads, "hashing")
    waiting: deque[tuple[Group, list[Future[None]]]] = deque()
    running = 0
    try:
        for group in groups:
            new = [key for key in keys_of(group) if key not in hashes]
            tasks = [pool.submit(_hash_task, task, hashes, meter, stopped) for task in _tasks(new)]
            running += len(tasks)
            waiting.append((group, tasks))
            while waiting and (running > _AHEAD * threads or not waiting[0][1]):
                first, tasks = waiting.popleft()
                for future in tasks:
                    future.result()
                running -= len(tasks)
                yield first
        for group, tasks in waiting:
            for future in tasks:
                future.result()
            yield group
    finally:
        # After an interrupt, files of many GB are not read to their ends.
        stopped.set()
        pool.shutdown(cancel_futures=True)


def _hash_task(keys: list[HashKey], hashes: HashTable, meter: Meter, stopped: threading.Event) -> None:
    for key in keys:
        digest = hashlib.sha256()
        try:
            with open(key[0], "rb", buffering=0) as file:  # noqa: PTH123 - a million files: no Path for each
                while block := file.read(_BLOCK):
                    if stopped.is_set():
                        return
                    digest.update(block)
                    meter.read(len(block))
        except OSError:
            # Reported with its reason when its source is made.
            meter.read(0, 1)
            continue
        hashes[key] = digest.hexdigest()
        meter.read(0, 1)


def _tasks(keys: Iterable[HashKey]) -> Iterator[list[HashKey]]:
    task: list[HashKey] = []
    size = 0
    for key in keys:
        task.append(key)
        size += key[1]
        if len(task) >= _FILES or size >= _BYTES:
            yield task
            task, size = [], 0
    if task:
        yield task


def file_key(path: str | Path) -> HashKey | None:
    """Return the key of a file's hash; None if it is not a regular file or cannot be examined."""
    try:
        state = os.stat(path)  # noqa: PTH116 - a million files: no Path for each
    except OSError:
        return None
    return (str(path), state.st_size, state.st_mtime_ns) if stat.S_ISREG(state.st_mode) else None


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's content. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _short(key: object) -> bytes:
    assert isinstance(key, tuple)
    text = "\0".join(map(str, key)).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=16).digest()
