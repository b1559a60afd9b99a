"""Measure each segment's melody and say how expressive it is."""

from __future__ import annotations

import numpy as np

from pipeline.prosody import Prosody, measure_prosody
from pipeline.records import Segment, Session
from pipeline.stage import Resources, Stage, StageConfig

# Weights of the logistic, rounded by hand and chosen among six candidates by how well neutral and emotional acted speech
# part (area under the curve over all emotions / strong ones): RAVDESS 0.90 / 0.95, EmoDB 0.84 / 1.00, nEMO 0.74 / 0.83. All
# three were looked at in choosing. Where each clip is a recording of its own, its speaker's resting pitch is not known, and
# it is 0.78, 0.82 and 0.49: for nEMO, chance.
_TYPICAL = {
    "pitch_range_st": (7.0, 3.5),
    "level_range_db": (16.0, 6.0),
    "pitch_speed": (0.28, 0.15),
    "raised_st": (0.0, 3.0),
}
_WEIGHTS = {"pitch_range_st": 0.3, "level_range_db": 0.3, "pitch_speed": 0.6, "raised_st": 1.5}
_BIAS = -0.6


class ClassifyEmotionConfig(StageConfig):
    """Settings of `classify_emotion`: none yet; an emotion expert joins in with its weights."""


class ClassifyEmotion(Stage[ClassifyEmotionConfig]):
    """Segments -> `pitch_hz` (median, Hz), `pitch_range_st` (semitones), `expressive_p`.

    The paper picks out expressive speech before paying for descriptions. `expressive_p` is a logistic of the pitch range,
    the level range, the speed of the melody and how far the pitch is above the session's low register; it ranks clips, it
    is no probability of any one emotion. `emotion` stays empty without an expert: the classifiers that install without a
    hub are right on 13-37 % of foreign data.
    """

    name = "classify_emotion"
    version = "1"
    config_type = ClassifyEmotionConfig
    inputs = ("windows", "segments")
    outputs = ("segment.pitch_hz", "segment.pitch_range_st", "segment.expressive_p")
    resources = Resources(cpus=0.02)

    def __call__(self, session: Session) -> Session:
        found: list[tuple[Segment, Prosody]] = []

        def work(segment: Segment) -> None:
            prosody = measure_prosody(session.audio(segment))
            if prosody is not None:
                found.append((segment, prosody))

        self.for_each(session, session.alive(), work)
        if not found:
            return session
        # A speaker's resting pitch: the lower quartile over the session's recording the segment is from.
        rest: dict[str, float] = {}
        for source_id in {segment.source_id for segment, _ in found}:
            own = [prosody.pitch_hz for segment, prosody in found if segment.source_id == source_id]
            rest[source_id] = float(np.percentile(own, 25))
        for segment, prosody in found:
            segment.pitch_hz, segment.pitch_range_st = prosody.pitch_hz, prosody.pitch_range_st
            segment.expressive_p = expressive_p(prosody, rest[segment.source_id])
        return session


def expressive_p(prosody: Prosody, rest_hz: float) -> float:
    """0-1: how expressive a clip sounds by its melody; `rest_hz` is the speaker's resting pitch."""
    values = {
        "pitch_range_st": prosody.pitch_range_st,
        "level_range_db": prosody.level_range_db,
        "pitch_speed": prosody.pitch_speed,
        "raised_st": 12 * float(np.log2(prosody.pitch_hz / rest_hz)),
    }
    score = _BIAS
    for name, weight in _WEIGHTS.items():
        middle, spread = _TYPICAL[name]
        score += weight * float(np.clip((values[name] - middle) / spread, -3, 3))
    return float(1 / (1 + np.exp(-score)))
