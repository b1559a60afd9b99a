"""Cut recordings into utterances, in silence and never inside speech, with every second accounted for."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from catalogs.corpus.ids import segment_id
from pipeline.records import PCM_RATE, Recording, Segment, Session, SpeechSpan
from pipeline.speech.quiet import quietest, settle
from pipeline.stage import Resources, Stage, StageConfig


class SegmentConfig(StageConfig):
    """Settings of `segment`; all in seconds."""

    min_s: float = Field(0.5, gt=0)
    """A shorter segment gets the hard reason `too_short`."""
    max_s: float = Field(30.0, ge=2, le=300)
    """Longest segment with its padding; longer speech is split at its quietest place. The paper's curriculum goes up to 300."""
    target_s: float = Field(15.0, gt=0)
    """Neighboring stretches are joined up to this length."""
    join_s: float = Field(0.6, ge=0)
    """Pauses up to this long are kept inside a segment, unless another voice begins after them."""
    pad_s: float = Field(0.15, ge=0, le=0.25)
    """Silence kept before and after the speech, if there is any."""
    reach_s: float = Field(0.3, ge=0, le=1)
    """Maximum further distance by which an end with voice at it is moved to a quiet place."""
    gap_s: float = Field(5.0, gt=0)
    """Stretches without speech of at least this length become rows with the hard reason `no_speech`."""

    @model_validator(mode="after")
    def _in_order(self) -> SegmentConfig:
        if not self.min_s <= self.target_s <= self.max_s or self.min_s > self.max_s / 4:
            raise ValueError("min_s, target_s and max_s must rise, and min_s be at most a quarter of max_s")
        return self


class CutSegments(Stage[SegmentConfig]):
    """Stretches of speech -> segments, numbered over the session in order of recording and time.

    The paper's clips are single utterances cut at pauses. `start_s` and `end_s` lie on samples of the recording's own rate.
    For each recording, duration_s = silence_s + the sum of its segments, kept and rejected. Stretches of at least five
    seconds without speech are rejected rows; shorter pauses between segments are added to `silence_s`. An end with voice at
    it is moved to the nearest quiet place of its pause.
    """

    name = "segment"
    version = "4"
    config_type = SegmentConfig
    inputs = ("windows", "speech")
    outputs = ("segments", "segment.separated")
    resources = Resources(cpus=0.01)

    def __call__(self, session: Session) -> Session:
        self.for_each(session, session.usable(), lambda recording: self._cut(session, recording))
        for seq, segment in enumerate(session.segments):
            rate = session.recording(segment.source_id).sample_rate
            segment.seq = seq
            first, last = round(segment.start_s * rate), round(segment.end_s * rate)
            segment.segment_id = segment_id(segment.source_id, first, last, session.fingerprint)
        return session

    def _cut(self, session: Session, recording: Recording) -> None:
        source_id, rate = recording.source.source_id, recording.sample_rate
        length = round(recording.duration_s * rate)
        spans = sorted((s for s in session.speech if s.source_id == source_id), key=lambda span: span.start_s)
        stretches: list[tuple[float, float]] = []
        for start, end in join_spans(spans, self.config):
            stretches += self._split(session, source_id, start, end)
        # A span may exceed the recording's end by one 16 kHz sample: the resampler rounds its length up.
        edges = [(min(round(a * rate), length), min(round(b * rate), length)) for a, b in stretches]
        edges = [(a, b) for a, b in edges if a < b]
        pieces = pad_stretches(edges, length, round(self.config.pad_s * rate))
        pieces = self._settle(session, recording, edges, pieces)
        gaps = self._gaps(pieces, length, rate)
        used = 0
        for first, last in sorted(pieces + gaps):
            segment = Segment(source_id, 0, first / rate, last / rate)
            if (first, last) in gaps:
                segment.hard_reasons.append("no_speech")
            segment.separated = recording.separation.touches(segment.start_s, segment.end_s)
            if last - first < self.config.min_s * rate:
                segment.hard_reasons.append("too_short")
            session.segments.append(segment)
            used += last - first
        recording.silence_s = (length - used) / rate

    def _split(self, session: Session, source_id: str, start: float, end: float) -> list[tuple[float, float]]:
        """Return pieces of at most `max_s`. Each is split off at the quietest 100 ms of the later half of what fits. The
        last piece is never shorter than a quarter of `max_s`."""
        longest = self.config.max_s - 2 * self.config.pad_s
        pieces = []
        while end - start > longest:
            high = min(start + longest, end - longest / 4)
            low = high - longest / 2
            pcm = session.pcm(source_id, low, high).astype(np.float32)
            cut = low + quietest(pcm) / PCM_RATE
            pieces.append((start, cut))
            start = cut
        return [*pieces, (start, end)]

    def _settle(
        self, session: Session, recording: Recording, speech: list[tuple[int, int]], pieces: list[tuple[int, int]]
    ) -> list[tuple[int, int]]:
        """Return the pieces with each end moved that has voice at it (a soft consonant that the detector missed).

        An end stays within its pause: it never enters speech or another piece, nor makes a piece longer than `max_s`. Two
        pieces that share a pause share the cut.
        """
        rate, source_id = recording.sample_rate, recording.source.source_id
        reach, longest = round(self.config.reach_s * rate), round(self.config.max_s * rate)
        edges = [edge for piece in pieces for edge in piece]
        # What lies on both sides of each edge: the last speech before it and the first one after it.
        spoken = [edge for stretch in speech for edge in stretch]

        def moved(index: int, low: int, high: int, first: int, last: int) -> int:
            wanted = edges[index]
            low, high = min(low, wanted), max(high, wanted)
            if low == high:
                return wanted
            first, last = min(first, low), max(last, high)
            samples = session.pcm(source_id, first / rate, last / rate).astype(np.float32) / 32768.0
            places = [round((place - first) * PCM_RATE / rate) for place in (wanted, low, high)]
            place = settle(samples, *places)
            return wanted if place == places[0] else min(max(round(first + place * rate / PCM_RATE), low), high)

        end = round(recording.duration_s * rate)
        for index in range(len(edges)):
            is_tail, own = index % 2, index // 2 * 2
            if is_tail and index + 1 < len(edges) and edges[index] == edges[index + 1]:
                low = max(spoken[index], edges[index + 2] - longest)
                high = min(spoken[index + 1], edges[own] + longest)
                edges[index] = edges[index + 1] = moved(index, low, high, edges[own], edges[index + 2])
            elif is_tail:
                after = edges[index + 1] if index + 1 < len(edges) else end
                high = min(edges[index] + reach, after, edges[own] + longest)
                edges[index] = moved(index, spoken[index], high, edges[own], high)
            elif not index or edges[index] != edges[index - 1]:
                before = edges[index - 1] if index else 0
                low = max(edges[index] - reach, before, edges[own + 1] - longest)
                edges[index] = moved(index, low, spoken[index], low, edges[own + 1])
        return list(zip(edges[0::2], edges[1::2], strict=True))

    def _gaps(self, pieces: list[tuple[int, int]], length: int, rate: int) -> list[tuple[int, int]]:
        """Long stretches without speech, in samples; a recording without any speech is one such stretch."""
        if not pieces:
            return [(0, length)] if length else []
        edges = [0, *(edge for piece in pieces for edge in piece), length]
        return [(a, b) for a, b in zip(edges[0::2], edges[1::2], strict=True) if b - a >= self.config.gap_s * rate]


def join_spans(spans: list[SpeechSpan], config: SegmentConfig) -> list[tuple[float, float]]:
    """Return neighboring spans joined over short pauses, unless another voice begins or the result is longer than the
    target."""
    joined: list[tuple[float, float]] = []
    for span in spans:
        if joined:
            start, end = joined[-1]
            if not span.turn and span.start_s - end <= config.join_s and span.end_s - start <= config.target_s:
                joined[-1] = (start, span.end_s)
                continue
        joined.append((span.start_s, span.end_s))
    return joined


def pad_stretches(stretches: list[tuple[int, int]], length: int, pad: int) -> list[tuple[int, int]]:
    """Stretches with up to `pad` samples more on both sides; two neighbors share the pause between them."""
    padded = []
    for index, (start, end) in enumerate(stretches):
        before = start if index == 0 else (start - stretches[index - 1][1]) // 2
        after = length - end if index == len(stretches) - 1 else (stretches[index + 1][0] - end) // 2
        padded.append((start - min(pad, before), end + min(pad, after)))
    return padded
