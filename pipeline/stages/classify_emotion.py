"""Measure the prosody of each segment and rate how expressive it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.records import Segment, Session
from pipeline.stage import Resources, Stage, StageConfig
from pipeline.voice.clusters import ALL_MOODS, cluster
from pipeline.voice.gender import gender_of
from pipeline.voice.prosody import Prosody, measure_prosody, track_pitch
from pipeline.voice.tract import measure_tract

# Weights of the logistic function, rounded by hand. They were chosen from six candidates by how well they separate neutral
# from emotional acted speech. Area under the curve over all emotions / strong ones: RAVDESS 0.90 / 0.95, EmoDB 0.84 / 1.00,
# nEMO 0.74 / 0.83. All three data sets were used for the choice. If each clip is a separate recording, its speaker's
# resting pitch is not known. Then the areas are 0.78, 0.82 and 0.49: for nEMO, chance.
_TYPICAL = {
    "pitch_range_st": (7.0, 3.5),
    "level_range_db": (16.0, 6.0),
    "pitch_speed": (0.28, 0.15),
    "raised_st": (0.0, 3.0),
}
_WEIGHTS = {"pitch_range_st": 0.3, "level_range_db": 0.3, "pitch_speed": 0.6, "raised_st": 1.5}
_BIAS = -0.6
# Threshold for voiceprints of an encoder that `ALL_MOODS` does not list.
_LOOSE = 0.5


class ClassifyEmotionConfig(StageConfig):
    """Settings of `classify_emotion`: none yet, because it does not include a classifier of emotions."""


class ClassifyEmotion(Stage[ClassifyEmotionConfig]):
    """Segments -> `pitch_hz`, `pitch_low_hz`, `pitch_range_st`, `formant_hz`, `effort_db`, `voiced_share`, `expressive_p`,
    `gender`, `gender_p`.

    The paper selects expressive speech before it pays for descriptions. `expressive_p` is a logistic function of four
    measures: the pitch range, the level range, the speed of the pitch, and how far the pitch is above the speaker's
    resting pitch. It ranks clips and is not the probability of any one emotion. Gender is decided for each voice, not for
    each segment, by the pitch, the fourth formant and the GE2E voiceprint of all its segments. Voiceprints of
    other encoders and of narrow-band audio do not count. It needs `embed_speaker` before it, and stays empty if it is less
    than 90 % sure, and for a voice that is always above 250 Hz (a child's, or one that shouts). A child's voice below is
    called female. Age needs a classifier and stays empty. `emotion` stays empty too: the classifiers that install without a hub
    are right on 13-37 % of out-of-domain data.
    """

    name = "classify_emotion"
    version = "3"
    # 2 decided gender by pitch alone. Its segments lack the columns from `pitch_low_hz` on, so no expert relies on their gender.
    continues = ("2",)
    config_type = ClassifyEmotionConfig
    inputs = ("windows", "segments", "segment.embedding", "segment.speaker")
    outputs = (
        "segment.pitch_hz",
        "segment.pitch_range_st",
        "segment.expressive_p",
        "segment.gender",
        "segment.gender_p",
        "segment.pitch_low_hz",
        "segment.formant_hz",
        "segment.effort_db",
        "segment.voiced_share",
    )
    resources = Resources(cpus=0.03)

    def __call__(self, session: Session) -> Session:
        found: list[tuple[Segment, Prosody]] = []

        def work(segment: Segment) -> None:
            samples = session.audio(segment)
            pitch = track_pitch(samples)
            prosody, tract = measure_prosody(samples, pitch), measure_tract(samples, pitch)
            if prosody is not None:
                found.append((segment, prosody))
                segment.pitch_low_hz, segment.voiced_share = prosody.pitch_low_hz, prosody.voiced_share
            if tract is not None:
                segment.formant_hz, segment.effort_db = tract.formant_hz, tract.effort_db

        self.for_each(session, session.alive(), work)
        if not found:
            return session
        for (segment, prosody), rest_hz in zip(found, resting_pitch(found), strict=True):
            segment.pitch_hz, segment.pitch_range_st = prosody.pitch_hz, prosody.pitch_range_st
            segment.expressive_p = expressive_p(prosody, rest_hz)
        voices: dict[str, list[Segment]] = {}
        for segment in session.alive():
            if segment.speaker is not None:
                voices.setdefault(segment.speaker, []).append(segment)
        for voice in voices.values():
            gender, p = gender_of(voice)
            for segment in voice:
                segment.gender, segment.gender_p = gender, p
        return session


def resting_pitch(found: Sequence[tuple[Segment, Prosody]]) -> np.ndarray:
    """Return the resting pitch in Hz of each segment's speaker, [N]: the lower quartile of the median pitches of the
    speaker's segments in the session.

    Voices are grouped more loosely here than for `speaker`. An excited voice differs from the same voice at rest, and with
    tight clusters it would be compared with itself only. Segments without a voiceprint are grouped by recording.
    """
    pitch = np.array([prosody.pitch_hz for _, prosody in found])
    names = np.array([segment.source_id for segment, _ in found], dtype=object)
    known = [place for place, (segment, _) in enumerate(found) if segment.embedding is not None]
    if known:
        prints = np.stack([np.asarray(found[place][0].embedding, dtype=np.float64) for place in known])
        names[known] = [f"voice {label}" for label in cluster(prints, ALL_MOODS.get(prints.shape[1], _LOOSE))]
    rest = {name: float(np.percentile(pitch[names == name], 25)) for name in set(names.tolist())}
    return np.array([rest[name] for name in names.tolist()])


def expressive_p(prosody: Prosody, rest_hz: float) -> float:
    """Return how expressive a clip sounds by its prosody, 0-1. `rest_hz` is the speaker's resting pitch."""
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
