"""Reference pairs: the clips of a session that may serve as another's reference, by rules on whole rows of a cosine matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.duplicates.groups import exact_links, join
from pipeline.duplicates.match import match_prints
from pipeline.records import Reference, Segment

_ROWS = 1024
"""Rows of the matrix that are held at once: 40 MB in a session of ten thousand segments."""
_SPARE = 8
"""Candidates per reference wanted, the best ones: of those with the same content only one is used."""


@dataclass(frozen=True)
class ReferenceQuality:
    """What a reference clip must have. A score that was not measured rejects nothing; None means no minimum."""

    min_dnsmos_ovr: float | None = None
    min_snr_db: float | None = None
    min_speaker_purity: float | None = None

    def passes(self, segment: Segment) -> bool:
        """Return True if a segment is good enough to show how its speaker sounds."""
        asked = (
            (segment.dnsmos_ovr, self.min_dnsmos_ovr),
            (segment.snr_db, self.min_snr_db),
            (segment.speaker_purity, self.min_speaker_purity),
        )
        return all(value is None or least is None or value >= least for value, least in asked)


def mine(
    segments: Sequence[Segment],
    threshold: float,
    min_s: float,
    per_segment: int,
    quality: ReferenceQuality | None = None,
) -> list[Reference]:
    """Return pairs among `segments` (one session's, in order of time); `gap` counts alive segments, 1 is the one directly
    before.

    A reference has a cosine above `threshold`, is not the clip directly before, is of the same speaker, is at least `min_s`
    long and passes `quality`. It is not a copy of the segment and does not have the same words: a model would learn to
    copy. Of several candidates with the same content only the closest is used. Each segment has up to `per_segment`, the
    closest first.
    """
    places = [place for place, segment in enumerate(segments) if segment.embedding is not None]
    if len(places) < 2:
        return []
    quality = quality or ReferenceQuality()
    prints = np.stack([np.asarray(segments[place].embedding, dtype=np.float32) for place in places])
    position = np.array(places)
    speaker = _numbers([segments[place].speaker for place in places])
    said = contents([segments[place] for place in places])
    fit = np.array([segments[p].duration_s >= min_s and quality.passes(segments[p]) for p in places])
    references = []
    for start in range(0, len(places), _ROWS):
        rows = slice(start, start + _ROWS)
        cosine = prints[rows] @ prints.T
        allowed = (cosine > threshold) & fit & (speaker[rows, None] == speaker) & (said[rows, None] != said)
        # The segment itself has the same content, so it is excluded already.
        allowed &= position[rows, None] - position != 1
        ranked = np.where(allowed, cosine, -np.inf)
        few = min(per_segment * _SPARE, len(places))
        best = np.argsort(-ranked, axis=1, kind="stable")[:, :few]
        for row, columns in enumerate(best):
            columns = columns[allowed[row, columns]]
            # The first of each content, in order of cosine.
            firsts = np.sort(np.unique(said[columns], return_index=True)[1])[:per_segment]
            here = int(position[start + row])
            for column in columns[firsts].tolist():
                there = int(position[column])
                references.append(
                    Reference(
                        segments[here].segment_id, segments[there].segment_id, float(cosine[row, column]), here - there
                    )
                )
    return references


def contents(segments: Sequence[Segment]) -> np.ndarray:
    """Return int [N]: a number per content, equal if texts have the same letters or the audio is the same, in part or
    whole."""
    texts = ["".join(c for c in (segment.text or "").casefold() if c.isalnum()) or None for segment in segments]
    pairs = [(link.first, link.second) for link in exact_links([s.audio_sha256 for s in segments]) + exact_links(texts)]
    empty = np.zeros(0, dtype=np.uint16)
    matches = match_prints([empty if s.audio_print is None else s.audio_print for s in segments])
    pairs += [(match.first, match.second) for match in matches]
    return join(np.arange(len(segments)), pairs)


def _numbers(names: Sequence[str | None]) -> np.ndarray:
    known: dict[str | None, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names])
