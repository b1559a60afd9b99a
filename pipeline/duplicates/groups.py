"""Groups from links: which segment comes first, what the others are to it, and what a split must keep together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from catalogs.corpus.duplicates import KINDS
from pipeline.duplicates.match import MOST_OF_IT, Match


@dataclass(frozen=True)
class Link:
    """Segments `first` and `second` (positions) are linked by one of `catalogs.corpus.duplicates.KINDS`."""

    first: int
    second: int
    kind: str


def links_of(matches: Iterable[Match]) -> list[Link]:
    """Links of what prints share: `reencode` where it is most of both clips, else `part`."""
    return [
        Link(m.first, m.second, "reencode" if min(m.of_first, m.of_second) >= MOST_OF_IT else "part") for m in matches
    ]


def exact_links(hashes: Sequence[str | None]) -> list[Link]:
    """Links of each segment to the one before with the same hash; None is equal to nothing."""
    last: dict[str, int] = {}
    links = []
    for place, value in enumerate(hashes):
        if value is None:
            continue
        if value in last:
            links.append(Link(last[value], place, "exact"))
        last[value] = place
    return links


def duplicate_rows(
    segment_ids: Sequence[str],
    hashes: Sequence[str | None],
    links: Sequence[Link],
    before: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """DUPLICATES rows of all linked segments, in the order they are given in, which says which one of a group is first.

    `before`: rows of the pass before, by segment id. A segment that was the first of a group stays it when a later run adds
    copies of it, whatever their place in the order: names of groups do not change under those who split by them.
    """
    once = {row["duplicate_group"] for row in before.values()} | {
        row["duplicate_of"] for row in before.values() if row["duplicate_of"]
    }
    later = np.array([segment not in once for segment in segment_ids], dtype=bool)
    rank = np.empty(len(segment_ids), dtype=np.int64)
    rank[np.argsort(later, kind="stable")] = np.arange(len(segment_ids))
    copies = join(rank, [(link.first, link.second) for link in links if link.kind in ("exact", "reencode")])
    everything = join(rank, [(link.first, link.second) for link in links])
    # How a set of copies hangs together with others: the closest way in which any of them does.
    beside: dict[int, int] = {}
    for link in links:
        if link.kind in ("part", "same_text"):
            for place in (link.first, link.second):
                root = int(copies[place])
                beside[root] = min(beside.get(root, len(KINDS)), KINDS.index(link.kind))
    rows = []
    for place in sorted({place for link in links for place in (link.first, link.second)}):
        first, group = int(copies[place]), int(everything[place])
        of, kind = None, None
        if first != place:
            same = hashes[place] is not None and hashes[place] == hashes[first]
            of, kind = segment_ids[first], "exact" if same else "reencode"
        elif group != place:
            of, kind = segment_ids[group], KINDS[beside[place]]
        rows.append(
            {
                "segment_id": segment_ids[place],
                "duplicate_of": of,
                "duplicate_kind": kind,
                "duplicate_group": segment_ids[group],
            }
        )
    return rows


def join(rank: np.ndarray, pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """For each place, the one of lowest `rank` among all it is linked to, however many links away: int [N]."""
    parent = list(range(len(rank)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for first, second in pairs:
        one, two = root(first), root(second)
        if one != two:
            low, high = (one, two) if rank[one] < rank[two] else (two, one)
            parent[high] = low
    return np.array([root(place) for place in range(len(rank))], dtype=np.int64)
