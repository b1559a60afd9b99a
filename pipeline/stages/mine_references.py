"""Find, for each segment, other clips of the same voice in the same session that may serve as its reference."""

from __future__ import annotations

from pydantic import Field

from catalogs.weights.registry import weights as weights_of
from pipeline.records import Session
from pipeline.stage import Resources, Stage, StageConfig
from pipeline.voice.encoders import EncoderName
from pipeline.voice.purity import LEAST_PURITY
from pipeline.voice.references import ReferenceQuality, mine


class MineReferencesConfig(StageConfig):
    """Settings of `mine_references`."""

    threshold: float | None = Field(None, ge=-1, le=1)
    """Minimum cosine of a pair. None: the encoder's value (the paper's 0.7 belongs to ECAPA)."""
    encoder: EncoderName = "ge2e"
    """Encoder whose voiceprints are compared: that of all stages, set by `speaker_encoder`."""
    min_s: float = Field(1.5, ge=0)
    """Minimum length of a reference, in seconds."""
    per_segment: int = Field(4, ge=1)
    """Maximum number of references per segment. The closest ones are kept, and no two with the same words or audio."""
    min_dnsmos_ovr: float | None = Field(2.4, ge=1, le=5)
    """Minimum overall DNSMOS of a reference. null: no minimum. A score that was not measured rejects nothing."""
    min_snr_db: float | None = 15.0
    """Minimum signal-to-noise ratio of a reference, in dB."""
    min_speaker_purity: float | None = Field(None, ge=-1, le=1)
    """Minimum cosine between the parts of a reference, so that it holds one voice. None: the encoder's value (0.7 for GE2E,
    0.35 for ECAPA). -1: no minimum."""


class MineReferences(Stage[MineReferencesConfig]):
    """Segments with embeddings -> reference pairs, up to four per segment, the closest first.

    The paper's rule: same session, cosine above the threshold, never the directly preceding clip. The preceding clip is the
    previous one in the same recording, in order of time, among the segments that are alive: a rejected cough between two
    clips does not separate them. In addition to the paper's rule, a reference has the same `speaker` and a minimum length
    and quality. It has neither the same audio nor the same words as the segment, and no two references of a segment have
    the same words or audio.
    """

    name = "mine_references"
    version = "3"
    config_type = MineReferencesConfig
    inputs = (
        "segments",
        "segment.text",
        "segment.embedding",
        "segment.speaker",
        "segment.speaker_purity",
        "segment.dnsmos_ovr",
        "segment.snr_db",
        "segment.audio_sha256",
        "segment.audio_print",
    )
    outputs = ("references",)
    resources = Resources(cpus=0.01)

    def __call__(self, session: Session) -> Session:
        segments = sorted(session.alive(), key=lambda segment: segment.seq)
        least = self.config.min_speaker_purity
        if least is None:
            least = LEAST_PURITY[self.config.encoder]
        quality = ReferenceQuality(self.config.min_dnsmos_ovr, self.config.min_snr_db, least)
        session.references = mine(segments, self.least_cosine(), self.config.min_s, self.config.per_segment, quality)
        return session

    def least_cosine(self) -> float:
        """Return the minimum cosine of a pair: the setting if given, otherwise the encoder's value in models.toml."""
        if self.config.threshold is not None:
            return self.config.threshold
        return weights_of(self.config.encoder).cosine_threshold or 0.7
