"""Measure the recording quality of each segment."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from catalogs.weights.registry import resolve
from pipeline.quality.dnsmos import Dnsmos
from pipeline.quality.levels import energy_db, frame_power, gain_db, loudness_lufs, snr_db
from pipeline.quality.reverberation import reverb_s
from pipeline.records import PCM_RATE, Segment, Session, SpeechSpan
from pipeline.stage import Resources, Stage, StageConfig, StageError

_BESIDE_S = 0.5
"""Seconds of non-speech on each side of a segment that also count for its noise estimate."""


class ScoreQualityConfig(StageConfig):
    """Settings of `score_quality`."""

    dnsmos_hop_s: float = Field(9.01, gt=0)
    """Hop of the DNSMOS window in seconds; the scores depend on it. 9.01 means windows without overlap (25x real time per
    core), 1 is the reference's hop (2.8x)."""
    target_lufs: float = Field(-23.0, le=0)
    """Loudness to which `gain_db` brings a clip, in LUFS (EBU R 128)."""
    peak_dbfs: float = Field(-1.0, le=0)
    """Peak that `gain_db` stays below, in dB of full scale: a loud click in a soft voice must not be clipped."""


class ScoreQuality(Stage[ScoreQualityConfig]):
    """Segments -> DNSMOS P.835 (1-5), snr_db, loudness_lufs, gain_db, reverb_s, energy_db, head and tail silence (s).

    The paper filters by a speech quality model first. Nothing is dropped here; the scores are recorded. The signal in
    `snr_db` and `energy_db` is the frames that the VAD marks as speech. The noise is the quietest tenth of all frames of
    the segment and of up to 0.5 s of non-speech on each side. `gain_db` brings the clip to -23 LUFS as far as its peak
    stays below -1 dBFS. The stored audio keeps its level; readers apply the gain (`Corpus.read_audio(id, level=True)`).
    `reverb_s` is the time in which falling levels would fall by 60 dB. `cut_clips` measures what needs the native-rate
    audio (`bandwidth_hz`, `clipping`).
    """

    name = "score_quality"
    version = "2"
    config_type = ScoreQualityConfig
    inputs = ("windows", "speech", "segments")
    outputs = (
        "segment.dnsmos_sig",
        "segment.dnsmos_bak",
        "segment.dnsmos_ovr",
        "segment.snr_db",
        "segment.loudness_lufs",
        "segment.gain_db",
        "segment.reverb_s",
        "segment.energy_db",
        "segment.head_silence_s",
        "segment.tail_silence_s",
    )
    resources = Resources(cpus=0.3)

    def weights(self) -> tuple[str, ...]:
        return ("dnsmos",)

    def load(self) -> None:
        self._dnsmos = Dnsmos(resolve("dnsmos"))

    def __call__(self, session: Session) -> Session:
        spans: dict[str, list[SpeechSpan]] = {}
        for span in session.speech:
            spans.setdefault(span.source_id, []).append(span)
        self.for_each(session, session.alive(), lambda s: self._score(session, s, spans.get(s.source_id, [])))
        return session

    def _score(self, session: Session, segment: Segment, spans: list[SpeechSpan]) -> None:
        samples = session.audio(segment)
        if not len(samples):
            raise StageError("this segment has no audio")
        ratings = self._dnsmos.rate(samples, self.config.dnsmos_hop_s)
        segment.dnsmos_sig, segment.dnsmos_bak, segment.dnsmos_ovr = ratings
        inside = [s for s in spans if s.end_s > segment.start_s and s.start_s < segment.end_s]
        if inside:
            segment.head_silence_s = max(0.0, inside[0].start_s - segment.start_s)
            segment.tail_silence_s = max(0.0, segment.end_s - inside[-1].end_s)
        power = frame_power(samples)
        times = segment.start_s + (np.arange(len(power)) + 0.5) * 0.02
        spoken = np.zeros(len(power), dtype=bool)
        for span in inside:
            spoken |= (times >= span.start_s) & (times < span.end_s)
        speech = power[spoken] if spoken.any() else power
        segment.energy_db = energy_db(speech)
        segment.snr_db = snr_db(speech, np.concatenate([power, self._beside(session, segment, spans)]))
        segment.loudness_lufs = loudness_lufs(samples)
        if segment.loudness_lufs is not None:
            segment.gain_db = gain_db(samples, segment.loudness_lufs, self.config.target_lufs, self.config.peak_dbfs)
        segment.reverb_s = reverb_s(samples)

    def _beside(self, session: Session, segment: Segment, spans: list[SpeechSpan]) -> np.ndarray:
        """Return the frame powers of the non-speech just before and after the segment."""
        before = max((s.end_s for s in spans if s.end_s <= segment.start_s + 1e-6), default=0.0)
        after = min((s.start_s for s in spans if s.start_s >= segment.end_s - 1e-6), default=segment.end_s + _BESIDE_S)
        parts = []
        for start, end in (
            (max(before, segment.start_s - _BESIDE_S), segment.start_s),
            (segment.end_s, min(after, segment.end_s + _BESIDE_S)),
        ):
            pcm = session.pcm(segment.source_id, start, end)
            if len(pcm) > PCM_RATE // 50:
                parts.append(frame_power(pcm.astype(np.float32) / 32768.0))
        return np.concatenate(parts) if parts else np.zeros(0)
