"""Compute the voiceprint of each segment and group the session's segments by voice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from pipeline.records import Segment, Session
from pipeline.runtime.devices import Device
from pipeline.stage import Resources, Stage, StageConfig
from pipeline.voice.clusters import ONE_VOICE, cluster
from pipeline.voice.encoders import EncoderName, load_encoder
from pipeline.voice.purity import purity


class EmbedSpeakerConfig(StageConfig):
    """Settings of `embed_speaker`."""

    encoder: EncoderName = "ge2e"
    """Encoder of the voiceprints: that of all stages, set by `speaker_encoder`."""
    cluster_threshold: float | None = Field(None, ge=-1, le=1)
    """Minimum mean cosine of two groups that are merged into one voice. None: the encoder's value (0.78 for GE2E, 0.45 for
    ECAPA)."""
    batch_size: int = Field(16, gt=0)
    """Segments per batch of the encoder. Halved automatically if memory does not suffice."""
    device: Device = "auto"
    """`auto`: the actor's share of a GPU (`engine.gpus`) if it has one, otherwise the CPU. GE2E always runs on the CPU."""


class EmbedSpeaker(Stage[EmbedSpeakerConfig]):
    """Segments -> `embedding` (unit length), `speaker`, `speaker_purity`.

    The paper mines references by the cosine of speaker embeddings. `speaker` names a cluster within the session by the
    session and the cluster's first segment. Recordings that are added to a session later are clustered separately, and
    their names differ from the existing ones. `speaker_purity` is the cosine between the part of the segment that differs
    most from the rest and that rest (`pipeline.voice.purity`). It is low if a second voice speaks alone in a part of the
    segment. It is not measured in segments of one window (2 s and less, with GE2E).
    """

    name = "embed_speaker"
    version = "4"
    config_type = EmbedSpeakerConfig
    inputs = ("windows", "segments")
    outputs = ("segment.embedding", "segment.speaker", "segment.speaker_purity")
    resources = Resources(cpus=0.03, memory_bytes=1024**3)

    def weights(self) -> tuple[str, ...]:
        return (self.config.encoder,)

    def load(self) -> None:
        self._encoder = load_encoder(self.config.encoder, self.config.device)

    def __call__(self, session: Session) -> Session:
        self.for_batches(session, session.alive(), lambda batch: self._embed(session, batch), self.config.batch_size)
        segments = [segment for segment in session.alive() if segment.embedding is not None]
        if not segments:
            return session
        threshold = self.config.cluster_threshold
        if threshold is None:
            threshold = ONE_VOICE[self._encoder.width]
        labels = cluster(np.stack([np.asarray(segment.embedding) for segment in segments]), threshold)
        for label in sorted(set(labels.tolist())):
            voice = [segment for segment, own in zip(segments, labels, strict=True) if own == label]
            for segment in voice:
                segment.speaker = speaker_name(session.session_id, voice[0].segment_id)
        return session

    def _embed(self, session: Session, batch: Sequence[Segment]) -> None:
        clips = [session.audio(segment) for segment in batch]
        # The network returns a voiceprint even for digital silence.
        heard = [(segment, samples) for segment, samples in zip(batch, clips, strict=True) if np.any(samples)]
        if not heard:
            return
        for (segment, _), prints in zip(heard, self._encoder.partials([samples for _, samples in heard]), strict=True):
            mean = prints.mean(axis=0)
            length = float(np.linalg.norm(mean))
            if length >= 1e-6:
                segment.embedding = (mean / length).astype(np.float32)
                segment.speaker_purity = purity(prints)


def speaker_name(session_id: str, first_segment_id: str) -> str:
    """Return the name of a voice: its session and the first ten digits of the id of its first segment.

    A running number would name another person after a later run adds recordings to the session.
    """
    return f"{session_id}:spk-{first_segment_id[:10]}"
