"""Cut recordings into utterances, in silence and never inside speech, with every second accounted for."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from catalogs.ids import segment_id
from pipeline.records import PCM_RATE, Recording, Segment, Session, SpeechSpan
from pipeline.stage import Resources, Stage, StageConfig


class SegmentConfig(StageConfig):
    """Settings of `segment`; all in seconds."""

    min_s: float = Field(0.5, gt=0)
    """A shorter segment gets the hard reason `too_short`."""
    max_s: float = Field(30.0, gt=1, le=300)
    """Longest segment; longer speech is split at its quietest place."""
    target_s: float = Field(15.0, gt=0)
    """Neighbouring stretches are joined up to this length."""
    join_s: float = Field(0.6, ge=0)
    """Pauses up to this long are kept inside a segment."""
    pad_s: float = Field(0.15, ge=0)
    """Silence kept before and after the speech, as far as there is any."""
    gap_s: float = Field(5.0, gt=0)
    """Stretches without speech of at least this length become rows with the hard reason `no_speech`."""


class CutSegments(Stage[SegmentConfig]):
    """Stretches of speech -> segments, numbered over the session in order of recording and time.

    The paper's clips are single utterances cut at pauses. For each recording, duration_s = silence_s + the sum of its
    segments, kept and rejected: shorter pauses between segments are added up in `silence_s`.
    """

    name = "segment"
    version = "1"
    config_type = SegmentConfig
    inputs = ("windows", "speech")
    outputs = ("segments",)
    resources = Resources(cpus=0.1)

    def __call__(self, session: Session) -> Session:
        self.for_each(session, session.usable(), lambda recording: self._cut(session, recording))
        for seq, segment in enumerate(session.segments):
            rate = session.recording(segment.source_id).sample_rate
            segment.seq = seq
            first, last = round(segment.start_s * rate), round(segment.end_s * rate)
            segment.segment_id = segment_id(segment.source_id, first, last, session.fingerprint)
        return session

    def _cut(self, session: Session, recording: Recording) -> None:
        source_id, duration = recording.source.source_id, recording.duration_s
        spans = sorted((s for s in session.speech if s.source_id == source_id), key=lambda span: span.start_s)
        stretches: list[tuple[float, float]] = []
        for start, end in join_spans(spans, self.config):
            stretches += self._split(session, source_id, start, end)
        segments = []
        for start, end in pad_stretches(stretches, duration, self.config.pad_s):
            segment = Segment(source_id, 0, start, end)
            segment.separated = recording.separated_path is not None
            if segment.duration_s < self.config.min_s:
                segment.hard_reasons.append("too_short")
            segments.append(segment)
        segments += self._gaps(source_id, segments, duration)
        segments.sort(key=lambda segment: segment.start_s)
        session.segments += segments
        recording.silence_s = max(0.0, duration - sum(segment.duration_s for segment in segments))

    def _split(self, session: Session, source_id: str, start: float, end: float) -> list[tuple[float, float]]:
        """Pieces of at most `max_s`, split at the quietest 100 ms of the later half of what fits."""
        pieces = []
        while end - start > self.config.max_s:
            low, high = start + self.config.max_s / 2, start + self.config.max_s
            pcm = session.pcm(source_id, low, high).astype(np.float32)
            cut = low + quietest(pcm) / PCM_RATE
            pieces.append((start, cut))
            start = cut
        return [*pieces, (start, end)]

    def _gaps(self, source_id: str, segments: list[Segment], duration: float) -> list[Segment]:
        """Long stretches without speech, as rejected rows; a recording without any speech is one such row."""
        edges = [0.0, *(time for segment in segments for time in (segment.start_s, segment.end_s)), duration]
        gaps = []
        for start, end in zip(edges[0::2], edges[1::2], strict=True):
            if end - start >= self.config.gap_s or (not segments and end > start):
                gaps.append(Segment(source_id, 0, start, end, hard_reasons=["no_speech"]))
        return gaps


def join_spans(spans: list[SpeechSpan], config: SegmentConfig) -> list[tuple[float, float]]:
    """Neighbouring spans joined over short pauses, as long as the whole stays within the target length."""
    joined: list[tuple[float, float]] = []
    for span in spans:
        if joined:
            start, end = joined[-1]
            if span.start_s - end <= config.join_s and span.end_s - start <= config.target_s:
                joined[-1] = (start, span.end_s)
                continue
        joined.append((span.start_s, span.end_s))
    return joined


def pad_stretches(stretches: list[tuple[float, float]], duration: float, pad_s: float) -> list[tuple[float, float]]:
    """Stretches with up to `pad_s` before and after; between two neighbours each gets at most half of the pause."""
    padded = []
    for index, (start, end) in enumerate(stretches):
        before = start if index == 0 else (start - stretches[index - 1][1]) / 2
        after = duration - end if index == len(stretches) - 1 else (stretches[index + 1][0] - end) / 2
        padded.append((start - max(0.0, min(pad_s, before)), end + max(0.0, min(pad_s, after))))
    return padded


def quietest(pcm: np.ndarray, width: int = PCM_RATE // 10) -> int:
    """Index of the middle of the quietest `width` samples."""
    power = np.concatenate([[0.0], np.cumsum(np.square(pcm, dtype=np.float64))])
    width = min(width, len(pcm))
    return int(np.argmin(power[width:] - power[:-width])) + width // 2
