"""Groups from links: which segment is first, how the others relate to it, and what a split must keep together."""

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
    """Return the links of matches: `reencode` if the shared part is most of both clips, otherwise `part`."""
    return [
        Link(m.first, m.second, "reencode" if min(m.of_first, m.of_second) >= MOST_OF_IT else "part") for m in matches
    ]


def exact_links(hashes: Sequence[str | None]) -> list[Link]:
    """Return links of each segment to the previous one with the same hash; None equals nothing."""
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
    """Return the DUPLICATES rows of all linked segments, in the given order, which decides the first segment of each group.

    `before`: rows of the previous pass, by segment id. The first segment of a group stays first when a later run adds
    copies of it, whatever their place in the order. The names of groups therefore do not change for splits that use them.
    """
    once = {row["duplicate_group"] for row in before.values()} | {
        row["duplicate_of"] for row in before.values() if row["duplicate_of"]
    }
    later = np.array([segment not in once for segment in segment_ids], dtype=bool)
    rank = np.empty(len(segment_ids), dtype=np.int64)
    rank[np.argsort(later, kind="stable")] = np.arange(len(segment_ids))
    copies = join(rank, [(link.first, link.second) for link in links if link.kind in ("exact", "reencode")])
    everything = join(rank, [(link.first, link.second) for link in links])
    # How a set of copies is linked to others: by the closest link that any of them has.
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
    """Return int [N]: for each place, the one of lowest `rank` among all that it is linked to, over any number of links."""
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
