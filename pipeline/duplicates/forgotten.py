"""Segments with the audio of what a corpus has forgotten: they are rejected, and nothing of them is stored but their times."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from catalogs.corpus.tombstones import forgotten_prints, read_tombstones
from pipeline.duplicates.audio_print import SILENT
from pipeline.duplicates.match import MOST_OF_IT, match_prints
from pipeline.records import Session

REASON = "forgotten"
"""The hard reason against such a segment."""
_MOST_OF_SEGMENT = 0.5
"""Least share of a segment's own words that it has in common with what is forgotten. A re-encoded recording is cut at other times,
so that a segment may be spread over several prints; a jingle in a long segment is less."""


def reject_forgotten(session: Session, root: Path) -> None:
    """Give the segments of a session that repeat what is forgotten the hard reason `forgotten`, and remove what they say.

    A corpus without tombstones costs one look at a folder. Raises CorpusError for a damaged tombstone.
    """
    ids = tuple(found.id for found in read_tombstones(root))
    if not ids:
        return
    hashes, prints = _forgotten(str(root), ids)
    alive = [segment for segment in session.segments if segment.flac is not None]
    own = [np.zeros(0, np.uint16) if s.audio_print is None else np.asarray(s.audio_print, np.uint16) for s in alive]
    repeated = repeats(own, prints)
    gone = set()
    for number, segment in enumerate(alive):
        if segment.audio_sha256 in hashes or number in repeated:
            gone.add(segment.segment_id)
            segment.hard_reasons = [*segment.hard_reasons, REASON]
            segment.flac = segment.embedding = segment.audio_print = None
            segment.text = segment.other_text = None
            segment.words = []
    session.references = [r for r in session.references if gone.isdisjoint((r.segment_id, r.reference_id))]


def repeats(own: Sequence[np.ndarray], forgotten: Sequence[np.ndarray]) -> set[int]:
    """Return the positions of the prints (uint16) that repeat most of a forgotten print, or that are mostly made of them."""
    if not forgotten or not any(len(words) for words in own):
        return set()
    base, found = len(forgotten), set[int]()
    shared = np.zeros(len(own))
    for match in match_prints([*forgotten, *own]):
        if match.first < base <= match.second:
            number = match.second - base
            shared[number] += match.of_second
            if match.of_first >= MOST_OF_IT:
                found.add(number)
    return found | set(np.flatnonzero(shared >= _MOST_OF_SEGMENT).tolist())


@lru_cache(maxsize=4)
def _forgotten(root: str, tombstones: tuple[str, ...]) -> tuple[frozenset[str], tuple[np.ndarray, ...]]:
    """Return the hashes and prints of a corpus' tombstones. tombstones: their ids, as the key of the cache."""
    del tombstones
    hashes, prints = forgotten_prints(root)
    words = (np.frombuffer(data, "<u2").astype(np.uint16) for data in prints if len(data) % 2 == 0)
    return hashes, tuple(found for found in words if np.any(found != SILENT))
