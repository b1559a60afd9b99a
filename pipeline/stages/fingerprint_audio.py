"""Compute the audio fingerprints that identify the same audio in any container, codec or level."""

from __future__ import annotations

import numpy as np

from pipeline.duplicates.audio_print import audio_print, sha256_of
from pipeline.records import Segment, Session
from pipeline.stage import Resources, Stage, StageConfig


class FingerprintAudioConfig(StageConfig):
    """Settings of `fingerprint_audio`: none, because fingerprints of different settings cannot be compared."""


class FingerprintAudio(Stage[FingerprintAudioConfig]):
    """Segments -> `audio_sha256` (of the decoded 16 kHz samples) and `audio_print` (16 bits every 32 ms).

    The paper does not state how it keeps reposted audio out of its millions of hours. Nothing is dropped here. When all
    sessions are committed, duplicates are found over the whole corpus (`pipeline.duplicates.mark`) and recorded in
    `duplicate_of`, `duplicate_kind` and `duplicate_group`. Silence gets no fingerprint.
    """

    name = "fingerprint_audio"
    version = "1"
    config_type = FingerprintAudioConfig
    inputs = ("windows", "segments")
    outputs = ("segment.audio_sha256", "segment.audio_print")
    resources = Resources(cpus=0.01)

    def __call__(self, session: Session) -> Session:
        self.for_each(session, session.alive(), lambda segment: _print(session, segment))
        return session


def _print(session: Session, segment: Segment) -> None:
    pcm = session.pcm(segment.source_id, segment.start_s, segment.end_s)
    if not np.any(pcm):
        return
    segment.audio_sha256 = sha256_of(pcm)
    segment.audio_print = audio_print(pcm.astype(np.float32) / 32768.0)
