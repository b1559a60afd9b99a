"""Attempts at a source: which record holds the newest one, and why an attempt failed.

A source that failed may be processed again. Then two records list it: readers use the newest and leave out the rows of the older.
If no source is listed twice (nearly always), nothing is filtered.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from catalogs.corpus.ids import other_channel_id

Cause = Literal["data", "machine", "bug"]
CAUSES: tuple[Cause, ...] = ("data", "machine", "bug")
"""data: the recording is damaged. machine: a store, the network, memory or a worker failed. bug: any other exception."""

MACHINE_WORDS = (
    "(?i)time-?out|timed out|worker died|no answer within|cannot be fetched|out of memory|not enough memory|connection"
)
"""Regular expression for errors of the machine, for rows written before the column `cause` existed."""


def cause_sql() -> str:
    """Return a row's cause as a DuckDB expression over the columns of a quarantine row."""
    return f"coalesce(cause, CASE WHEN regexp_matches(error, '{MACHINE_WORDS}') THEN 'machine' ELSE 'data' END)"


def cause_of_row(row: Mapping[str, Any]) -> str:
    """Return the cause of a quarantine row, derived from its error if the row has no cause."""
    return row.get("cause") or ("machine" if re.search(MACHINE_WORDS, row.get("error") or "") else "data")


def record_order(record: Mapping[str, Any]) -> tuple[int, str, str]:
    """Return a key that is larger for newer records of one source. The generation decides first, not a clock."""
    return record.get("generation") or 0, record["at"], record["unit_id"]


def older_sources(
    records: Sequence[Mapping[str, Any]], by_clock: bool = True, gone: Collection[str] = ()
) -> dict[str, set[str]]:
    """Return, for each unit that has any, the ids of its sources that a newer record lists.

    The records must have one fingerprint: units of other settings are superseded as a whole. Without `by_clock` only a higher
    generation is newer: fsck reports two records of one generation for a source as an error. gone: sources that are older than
    any: they are to be forgotten.
    """
    counts = Counter(source for record in records for source in record["source_ids"])
    if len(counts) == counts.total() and not gone:
        return {}
    order = record_order if by_clock else lambda record: (record_order(record)[0], "", "")
    newest: dict[str, tuple[int, str, str]] = {}
    for record in records:
        for source in record["source_ids"]:
            if counts[source] > 1:
                newest[source] = max(newest.get(source, (-1, "", "")), order(record))
    found = {}
    for record in records:
        own = set(record["source_ids"])
        older = {source for source in own if source in newest and newest[source] != order(record)}
        # A file whose channels were two recordings may be one recording in the next attempt.
        older |= own & {other_channel_id(source) for source in older}
        older |= own.intersection(gone)
        if older:
            found[record["unit_id"]] = older
    return found


def newest_records(records: list[dict[str, Any]], gone: Collection[str] = ()) -> list[dict[str, Any]]:
    """Return the records without those whose sources are all listed by newer records, or are `gone`.

    A record with some such sources gets a key `superseded` with their ids. The key is not on the disk.
    """
    older = older_sources(records, gone=gone)
    return list(current_records(records, older)) if older else records


def newest(
    read: Callable[[], Iterable[dict[str, Any]]], gone: Collection[str] = frozenset()
) -> Iterator[dict[str, Any]]:
    """Yield what `newest_records` returns, holding no records. read: yields the same records each time, in two or three passes."""
    twice = _listed_twice(read())
    listed = (
        [_slim(r) for r in read() if any(hash(s) in twice or s in gone for s in r["source_ids"])]
        if twice or gone
        else []
    )
    yield from current_records(read(), older_sources(listed, gone=gone))


def _slim(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record.get(name) for name in ("unit_id", "generation", "at", "source_ids")}


def _listed_twice(records: Iterable[Mapping[str, Any]]) -> set[int]:
    """Return the hashes of the sources that several records list."""
    # Numbers instead of texts: a corpus may have tens of millions of sources.
    hashes = np.fromiter((hash(source) for record in records for source in record["source_ids"]), np.int64)
    values, counts = np.unique(hashes, return_counts=True)
    return set(values[counts > 1].tolist())


def current_records(records: Iterable[dict[str, Any]], older: Mapping[str, set[str]]) -> Iterator[dict[str, Any]]:
    """Yield the records that still count, with the key `superseded` where it is due. older: see `older_sources`."""
    for record in records:
        gone = older.get(record["unit_id"], set())
        if gone != set(record["source_ids"]) or not gone:
            yield record | {"superseded": sorted(gone)} if gone else record
