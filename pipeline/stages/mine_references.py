"""Find, for each segment, other clips of the same voice in the same session that may serve as its reference."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from catalogs.models import weights as weights_of
from pipeline.records import Reference, Segment, Session
from pipeline.stage import Resources, Stage, StageConfig


class MineReferencesConfig(StageConfig):
    """Settings of `mine_references`."""

    threshold: float | None = Field(None, ge=-1, le=1)
    """Cosine a pair must pass; None: the encoder's own (the paper's 0.7 belongs to ECAPA)."""
    encoder: str = "ge2e"
    """Encoder whose threshold is used when none is given; the same as embed_speaker's."""
    min_s: float = Field(1.5, ge=0)
    """Shortest reference, in seconds."""
    per_segment: int = Field(4, ge=1)
    """References kept for each segment at most, the best ones."""


class MineReferences(Stage[MineReferencesConfig]):
    """Segments with embeddings -> reference pairs.

    The paper's rule: same session, cosine above the threshold, never the clip directly preceding. "Preceding" is the
    segment before in the same recording's order of time among the segments that are alive: a rejected cough between two
    clips does not make them strangers.
    """

    name = "mine_references"
    version = "1"
    config_type = MineReferencesConfig
    inputs = ("segments", "segment.embedding")
    outputs = ("references",)
    resources = Resources(cpus=0.01)

    def __call__(self, session: Session) -> Session:
        threshold = self.config.threshold
        if threshold is None:
            threshold = weights_of(self.config.encoder).cosine_threshold or 0.7
        segments = sorted(session.alive(), key=lambda segment: segment.seq)
        session.references = mine(segments, threshold, self.config.min_s, self.config.per_segment)
        return session


def mine(segments: list[Segment], threshold: float, min_s: float, per_segment: int) -> list[Reference]:
    """Pairs among `segments` (one session's, in order of time); `gap` counts alive segments, 1 is the one directly before.

    Vectorised: one matrix product of the embeddings, whole rows masked.
    """
    if len(segments) < 2:
        return []
    width = next((len(s.embedding) for s in segments if s.embedding is not None), 0)
    prints = np.stack([np.zeros(width) if s.embedding is None else s.embedding for s in segments]).astype(np.float32)
    cosine = prints @ prints.T
    count = len(segments)
    allowed = cosine > threshold
    allowed[np.arange(count), np.arange(count)] = False
    allowed[np.arange(1, count), np.arange(count - 1)] = False
    allowed[:, [s.duration_s < min_s for s in segments]] = False
    mute = [s.embedding is None for s in segments]
    allowed[mute] = allowed[:, mute] = False
    order = np.argsort(np.where(allowed, -cosine, np.inf), axis=1, kind="stable")
    references = []
    for row in range(count):
        for column in order[row, : min(per_segment, int(allowed[row].sum()))]:
            segment, reference = segments[row], segments[int(column)]
            references.append(
                Reference(segment.segment_id, reference.segment_id, float(cosine[row, column]), row - int(column))
            )
    return references
