"""Open the candidate table of some corpora. The first process that needs it builds it while the others wait."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from catalogs.candidates.build import fill_table, table_key
from catalogs.candidates.held_out import held_out_draw
from catalogs.candidates.table import Table, Writer, draft_of, drafts, open_table
from catalogs.corpus.commit import CorpusError
from catalogs.corpus.damage import finding, repair_command
from catalogs.corpus.reader import Corpus
from catalogs.query.licensed import ANY

log = logging.getLogger(__name__)

FOLDER = "candidates"
_KEPT = 2
"""Number of tables of other corpus states that are kept beside a new one: other runs may still need them."""
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
_LONG = 200_000
"""Segments from which on the build is announced: it takes about a minute per million (docs/benchmarks.md)."""


class CandidateTableError(ValueError):
    """A candidate table cannot be built or written; the message states what to do."""


def candidate_table(parts: Sequence[Corpus], spare: Path, licenses: Sequence[str] = ANY) -> Table:
    """The table of segments with an allowed license. It lies beside the first corpus, or below `spare` where nothing can be written
    there, and is built if there is none.

    Raises CandidateTableError with one line if a corpus cannot be read, or the table cannot be written.
    """
    key = table_key(parts, licenses)
    for base in (parts[0].path / FOLDER, spare):
        try:
            found = _opened(base / key)
            if found is None:
                with _locked(base):
                    # Another process may have built it meanwhile.
                    found = _opened(base / key) or _built(parts, base, key, licenses)
            return found
        except OSError as error:
            if error.errno not in _READ_ONLY or base == spare:
                raise CandidateTableError(
                    f"the candidate table of {parts[0].path} cannot be written to {base}"
                    f" ({error.strerror or error}): make room there, or give a corpus folder that can be written to"
                ) from None
    raise AssertionError("one of the two folders is tried to the end")


@contextmanager
def _locked(base: Path) -> Iterator[None]:
    """Hold the lock of a folder of tables; the operating system releases it if the process dies."""
    base.mkdir(parents=True, exist_ok=True)
    with (base / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _opened(folder: Path) -> Table | None:
    """Open the table in a folder; return None if there is none, or if it is damaged."""
    try:
        table = open_table(folder)
    except (OSError, ValueError, KeyError, TypeError, json.JSONDecodeError):
        return None
    os.utime(folder / "table.json") if os.access(folder / "table.json", os.W_OK) else None
    return table


def _built(parts: Sequence[Corpus], base: Path, key: str, licenses: Sequence[str]) -> Table:
    """Build a table whole, beside its place, and put it there; remove what killed builds and older states have left."""
    for left in drafts(base):
        shutil.rmtree(left, ignore_errors=True)
    segments = sum(map(len, parts))
    if segments >= _LONG:
        log.info(
            f"building the candidate table of {segments:,} segments in {base / key} (once; about a minute per million)"
        )
    draft = draft_of(base / key)
    writer = Writer(draft)
    try:
        fill_table(parts, writer, draft / "scratch", held_out_draw, licenses)
        shutil.rmtree(draft / "scratch")
        shutil.rmtree(base / key, ignore_errors=True)
        draft.rename(base / key)
    except CorpusError:
        raise
    except (ValueError, pa.ArrowException) as error:
        raise CandidateTableError(
            f"the candidate table of {parts[0].path} cannot be built ({finding(error)}); run: {repair_command(parts[0].path)}"
        ) from None
    finally:
        writer.abandon()
        shutil.rmtree(draft, ignore_errors=True)
    _prune(base, key)
    return open_table(base / key)


def _prune(base: Path, key: str) -> None:
    """Remove the least recently opened tables, apart from `key` and the last _KEPT others."""

    def opened(folder: Path) -> float:
        about = folder / "table.json"
        return about.stat().st_mtime if about.is_file() else 0.0

    others = [path for path in base.iterdir() if path.is_dir() and path.name != key]
    for folder in sorted(others, key=opened)[:-_KEPT]:
        shutil.rmtree(folder, ignore_errors=True)
