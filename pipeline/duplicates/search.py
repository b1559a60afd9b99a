"""Search the segments that are new in a store: their fingerprints and texts against those of all. Memory does not grow with the
store, apart from the links found."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from catalogs.corpus.damage import reading
from catalogs.corpus.duplicates import KINDS
from catalogs.corpus.shards import Shard
from pipeline.duplicates.groups import links_of
from pipeline.duplicates.match import FENCE, FEW_WORDS, KEY_BIT, NEAR, VOTES, Match, alike, compare
from pipeline.duplicates.same_text import VoiceGroups
from pipeline.duplicates.sorted_runs import MOST_ROWS, find, open_run, ranges, release, write_run
from pipeline.duplicates.store import Store

_OTHER_BITS = 9
"""Most bits that may differ in the other 24 bits of two equal keys, in corpora of more than `FEW_WORDS`. By chance it is half of
them, and 15 % of the pairs pass; of copies with as many errors as are allowed at all, 98 %. Reading their words would take most of
the time."""
_OLD_ROWS, _LOOKUPS = 1 << 20, 1 << 9
"""Rows of an older run between the first and the last of the keys that are looked up at once, and the least number of keys."""
_MAPPED_BYTES, _PAIRS = 1 << 29, 1 << 13
"""If the fingerprints take more than this (512 MB: 2,300 hours), the pages are given back after the words of this many pairs. The
system maps 64 kB around each word."""
_VOTE_ROWS = 1 << 20
"""Votes that are held in memory: 24 MB."""
_MEMBERS = 1 << 14
"""Segments of repeated texts whose voiceprints are read at once: 16 MB."""


def search_prints(store: Store) -> None:
    """Find the audio that new segments share with any segment, and add the links."""
    if store.about.few and store.about.heard > FEW_WORDS:
        # One vote no longer suffices: everything is searched again by the other rule, once in the life of a corpus.
        store.about.few = False
        store.renew("keys", "audio")
    new = store.join_fresh("keys")
    if new is None:
        return
    votes, old = _Votes(store), store.maps("keys")
    longest = max((run.shape[1] for run in old), default=0)
    lookups = max(_LOOKUPS, min(MOST_ROWS, _OLD_ROWS * new.shape[1] // max(longest, 1)))
    for start in range(0, new.shape[1], MOST_ROWS):
        rows = np.array(new[:, start : start + MOST_ROWS + NEAR])
        release(new)
        for step in range(1, NEAR + 1):
            votes.add(rows[:, :-step][:, :MOST_ROWS], rows[:, step:][:, :MOST_ROWS])
        for at in range(0, min(MOST_ROWS, rows.shape[1]), lookups):
            own = rows[:, at : min(at + lookups, MOST_ROWS)]
            for run in old:
                place = find(run, own[0])
                for step in range(-NEAR, NEAR):
                    beside = place + step
                    there = (beside >= 0) & (beside < run.shape[1])
                    votes.add(np.array(run[:, beside[there]]), own[:, there])
                release(run)
    found = [_link(match) for match in votes.matches()]
    store.append("audio", np.array(found, dtype=np.uint64).reshape(-1, 3).T)
    store.searched("keys")
    store.save()


def _link(match: Match) -> tuple[int, int, int]:
    (link,) = links_of([match])
    return link.first, link.second, KINDS.index(link.kind)


class _Votes:
    """Votes for (segment, segment, offset), counted on disk."""

    def __init__(self, store: Store) -> None:
        self._folder = store.folder
        self._few = store.about.few
        self._words, self._starts = store.words(), store.starts()
        self._waiting: list[np.ndarray] = []
        self._held = 0
        self._runs: list[str] = []

    def add(self, one: np.ndarray, two: np.ndarray) -> None:
        """Add a vote for each pair of rows (key, place) that are of one bucket, in surroundings that agree."""
        differ = one[0, : two.shape[1]] ^ two[0]
        same = differ >> np.uint64(KEY_BIT) == 0
        if not self._few:
            same &= np.bitwise_count(differ & np.uint64((1 << KEY_BIT) - 1)) <= _OTHER_BITS
        hit = np.flatnonzero(same)
        if not len(hit):
            return
        first, second = one[1, hit].astype(np.int64), two[1, hit].astype(np.int64)
        near = np.zeros(len(first), dtype=bool)
        size = _PAIRS if self._words.nbytes > _MAPPED_BYTES else len(first)
        for at in range(0, len(first), size):
            part = slice(at, at + size)
            near[part] = alike(self._words, first[part], second[part])
            release(self._words)
        first, second = np.sort(np.stack([first[near], second[near]]), axis=0)
        owners = [np.searchsorted(self._starts, place, side="right") - 1 for place in (first, second)]
        offset = (first - self._starts[owners[0]].astype(np.int64)) - (
            second - self._starts[owners[1]].astype(np.int64)
        )
        other = owners[0] != owners[1]
        pair = owners[0].astype(np.uint64) << np.uint64(32) | owners[1].astype(np.uint64)
        ones = np.ones(int(other.sum()), dtype=np.uint64)
        self._waiting.append(np.stack([pair[other], offset[other].view(np.uint64), ones]))
        self._held += len(ones)
        if self._held > _VOTE_ROWS:
            self._write()

    def _write(self) -> None:
        rows = _counted(np.concatenate([np.zeros((3, 0), dtype=np.uint64), *self._waiting], axis=1))
        self._waiting, self._held = [rows], rows.shape[1]
        # Votes for the same pairs may be summed up in memory for long.
        if self._held > _VOTE_ROWS // 2:
            self._runs.append(write_run(self._folder, "votes", rows)[0])
            self._waiting, self._held = [], 0

    def matches(self) -> Iterator[Match]:
        """Yield what pairs with enough votes share, each pair at most once."""
        if self._waiting:
            rows = _counted(np.concatenate(self._waiting, axis=1))
            self._runs.append(write_run(self._folder, "votes", rows)[0])
        needed = 1 if self._few else VOTES
        for rows in ranges([open_run(self._folder, name) for name in self._runs]):
            found = _counted(rows)
            found = found[:, found[2] >= needed]
            # The offset with the most votes comes first.
            found = found[:, np.lexsort((-found[2].astype(np.int64), found[0]))]
            for pair in np.split(found, np.flatnonzero(found[0, 1:] != found[0, :-1]) + 1, axis=1):
                if pair.shape[1] and (match := self._best(pair)) is not None:
                    yield match
            release(self._words, self._starts)
        for name in self._runs:
            (self._folder / name).unlink()

    def _best(self, pair: np.ndarray) -> Match | None:
        first, second = int(pair[0, 0]) >> 32, int(pair[0, 0]) & 0xFFFFFFFF
        one, two = self._print(first), self._print(second)
        tried: set[int] = set()
        best = None
        for offset in pair[1].view(np.int64).tolist():
            # `compare` also tries the offsets beside the one that it is given.
            if offset in tried:
                continue
            tried |= {offset - 1, offset, offset + 1}
            match = compare(one, two, offset, first, second)
            if match is not None and (best is None or match.words > best.words):
                best = match
        return best

    def _print(self, segment: int) -> np.ndarray:
        last = segment + 1 == len(self._starts)
        end = len(self._words) if last else int(self._starts[segment + 1])
        return np.array(self._words[int(self._starts[segment]) : end - FENCE])


def _counted(rows: np.ndarray) -> np.ndarray:
    """Return the rows (pair, offset, votes) with the votes of equal pairs and offsets summed up."""
    rows = rows[:, np.lexsort((rows[1], rows[0]))]
    if not rows.shape[1]:
        return rows
    new = np.ones(rows.shape[1], dtype=bool)
    new[1:] = (rows[:2, 1:] != rows[:2, :-1]).any(axis=0)
    begin = np.flatnonzero(new)
    return np.concatenate([rows[:2, begin], np.add.reduceat(rows[2], begin)[None]])


def search_texts(store: Store, root: Path, cosine: float) -> None:
    """Find the texts that new segments share with any segment, and link those of one voice.

    All segments of such a text are compared again in order, because the order decides which is the first of a voice.
    """
    if store.about.cosine != cosine:
        store.about.cosine = cosine
        store.renew("text", "texts")
    new = store.join_fresh("text")
    if new is None:
        return
    old = store.maps("text")
    again: list[np.ndarray] = []
    found: list[tuple[int, int, int, int]] = []
    for own in ranges([new]):
        members = _members(own, old)
        again.append(np.unique(members[0]))
        for block in _blocks(members):
            found += _text_links(store, root, block, cosine)
    links = store.links("texts")
    kept = links[:, ~np.isin(links[0], np.concatenate(again))] if again else links
    store.replace("texts", np.concatenate([kept, np.array(found, dtype=np.uint64).reshape(-1, 4).T], axis=1))
    store.searched("text")
    store.save()


def _members(own: np.ndarray, old: list[np.ndarray]) -> np.ndarray:
    """Return the rows (hash, hash, segment) of all segments with texts of `own` that more than one segment has, by text."""
    parts, wanted = [own], np.unique(own[0])
    for run in old:
        first, last = find(run, wanted), find(run, wanted, "right")
        count = last - first
        place = np.repeat(first - np.cumsum([0, *count])[:-1], count) + np.arange(int(count.sum()))
        parts.append(np.array(run[:, place]))
        release(run)
    rows = np.concatenate(parts, axis=1)
    rows = rows[:, np.lexsort((rows[2], rows[1], rows[0]))]
    same = (rows[:2, 1:] == rows[:2, :-1]).all(axis=0)
    twice = np.zeros(rows.shape[1], dtype=bool)
    twice[1:] |= same
    twice[:-1] |= same
    return rows[:, twice]


def _blocks(members: np.ndarray) -> Iterator[np.ndarray]:
    """Yield members of whole texts, about `_MEMBERS` at once or those of one text."""
    new = np.ones(members.shape[1], dtype=bool)
    new[1:] = (members[:2, 1:] != members[:2, :-1]).any(axis=0)
    edges = [*np.flatnonzero(new).tolist(), members.shape[1]]
    start = 0
    for before, edge in pairwise(edges):
        if edge - start > _MEMBERS and before > start:
            yield members[:, start:before]
            start = before
    if members.shape[1] > start:
        yield members[:, start:]


def _text_links(store: Store, root: Path, members: np.ndarray, cosine: float) -> Iterator[tuple[int, int, int, int]]:
    """Yield (hash, hash, first, segment) for the segments whose voice has said the text before."""
    numbers = np.sort(members[2])
    by_number = members[:, np.argsort(members[2])]
    table = store.segments(numbers)
    for name, column in (("high", by_number[0]), ("low", by_number[1]), ("number", by_number[2])):
        table = table.append_column(name, pa.array(column))
    order = [(name, "ascending") for name in ("high", "low", "session_id", "seq", "segment_id")]
    table = table.sort_by(order)
    voices: VoiceGroups | None = None
    text = None
    for start in range(0, table.num_rows, _MEMBERS):
        part = table.slice(start, _MEMBERS)
        columns = (part.column(name).to_pylist() for name in ("high", "low", "number"))
        for high, low, number, own in zip(*columns, _voiceprints(root, part), strict=True):
            if voices is None or text != (high, low):
                voices, text = VoiceGroups(cosine), (high, low)
            first = voices.first_of(number, own) if own is not None else None
            if first is not None:
                yield high, low, first, number


def _voiceprints(root: Path, segments: pa.Table) -> list[np.ndarray | None]:
    """Return the voiceprints, float32 `[W]` of unit length, of segments; None for one without."""
    found: list[np.ndarray | None] = [None] * segments.num_rows
    by_shard: dict[str, list[tuple[int, int]]] = {}
    places = zip(segments.column("shard").to_pylist(), segments.column("row").to_pylist(), strict=True)
    for place, (shard, row) in enumerate(places):
        by_shard.setdefault(shard, []).append((row, place))
    for name, rows in by_shard.items():
        with reading(root / name):
            # Opened for these rows only: pages of open maps count as memory of the process.
            shard = Shard(root / name)
            for row, place in rows:
                values = shard.values(row, "embedding")
                # A copy: a view would keep the map open.
                found[place] = None if values is None or not len(values) else np.array(values)
    return found
