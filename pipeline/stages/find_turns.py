"""Find the pauses after which another voice speaks, so that no segment holds two voices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from pydantic import Field

from pipeline.records import PCM_RATE, Recording, Session, SpeechSpan
from pipeline.runtime.devices import Device
from pipeline.stage import Resources, Stage, StageConfig
from pipeline.voice.clusters import ANOTHER_VOICE
from pipeline.voice.encoders import EncoderName, load_encoder

_AT_ONCE = 16
# A voiceprint of less speech is less reliable: two of the same voice are further apart. (Seconds, reduction of the
# threshold.)
_SHORTER = ((0.8, 0.16), (1.6, 0.08))


class FindTurnsConfig(StageConfig):
    """Settings of `find_turns`; times in seconds."""

    encoder: EncoderName = "ge2e"
    """Encoder of the voiceprints: that of all stages, set by `speaker_encoder`."""
    threshold: float | None = Field(None, ge=-1, le=1)
    """Another voice begins if the cosine of the voiceprints on both sides of a pause is below this. None: the encoder's
    value (0.72 for GE2E, 0.45 for ECAPA), and lower if a side has less than 1.6 s of speech. -1: no turn is found."""
    pause_s: float = Field(0.6, ge=0)
    """Longer pauses are not examined, because `segment` cuts there anyway (its `join_s`)."""
    before_s: float = Field(4.0, gt=0)
    """Seconds of speech before the pause that are compared, since the last turn."""
    after_s: float = Field(0.8, gt=0)
    """Seconds of speech after the pause that are compared, over as many stretches as needed."""
    device: Device = "auto"
    """`auto`: the actor's share of a GPU (`engine.gpus`) if it has one, otherwise the CPU. GE2E always runs on the CPU."""


@dataclass
class _Heard:
    """The sum of the voiceprints of a stretch, weighted by its seconds."""

    prints: np.ndarray
    seconds: float


class FindTurns(Stage[FindTurnsConfig]):
    """Stretches of speech -> the same, with `turn` set if another voice begins; `segment` joins nothing across a turn.

    The paper's clips have one speaker each. At every pause short enough to be kept inside a segment, the voiceprint of the
    speech since the last turn is compared with that of the speech after the pause. A change of voice without a pause is not
    found here; `speaker_purity` shows it.
    """

    name = "find_turns"
    version = "1"
    config_type = FindTurnsConfig
    inputs = ("windows", "speech")
    outputs = ("speech",)
    resources = Resources(cpus=0.03, memory_bytes=1024**3)

    def weights(self) -> tuple[str, ...]:
        return (self.config.encoder,) if self.config.threshold != -1 else ()

    def load(self) -> None:
        self._encoder = load_encoder(self.config.encoder, self.config.device) if self.weights() else None

    def __call__(self, session: Session) -> Session:
        if self._encoder is not None:
            self.for_each(session, session.usable(), lambda recording: self._mark(session, recording))
        return session

    def _mark(self, session: Session, recording: Recording) -> None:
        spans = sorted(
            (span for span in session.speech if span.source_id == recording.source.source_id),
            key=lambda span: span.start_s,
        )
        for first, last in runs(spans, self.config.pause_s):
            if last - first > 1:
                self._compare(spans[first:last], self._hear(session, spans[first:last]))

    def _hear(self, session: Session, spans: Sequence[SpeechSpan]) -> list[_Heard]:
        encoder = self._encoder
        assert encoder is not None

        def hear(some: Sequence[SpeechSpan]) -> list[_Heard]:
            clips = [session.pcm(s.source_id, s.start_s, s.end_s).astype(np.float32) / 32768.0 for s in some]
            seconds = [len(clip) / PCM_RATE for clip in clips]
            return [_Heard(p.mean(axis=0) * s, s) for p, s in zip(encoder.partials(clips), seconds, strict=True)]

        return self.in_batches(spans, hear, _AT_ONCE)

    def _compare(self, spans: Sequence[SpeechSpan], heard: Sequence[_Heard]) -> None:
        """Set `turn` of spans that follow each other after short pauses."""
        begin = 0
        for index in range(1, len(spans)):
            before = _gather(heard[begin:index][::-1], self.config.before_s)
            after = _gather(heard[index:], self.config.after_s)
            likeness = float(before.prints @ after.prints)
            length = float(np.linalg.norm(before.prints) * np.linalg.norm(after.prints))
            if length > 0 and likeness / length < self._limit(min(before.seconds, after.seconds)):
                spans[index].turn = True
                begin = index

    def _limit(self, seconds: float) -> float:
        assert self._encoder is not None
        limit = self.config.threshold
        if limit is None:
            limit = ANOTHER_VOICE[self._encoder.width]
        return limit - next((less for shorter, less in _SHORTER if seconds < shorter), 0.0)


def runs(spans: Sequence[SpeechSpan], pause_s: float) -> list[tuple[int, int]]:
    """(first, last + 1) of spans in order of time that have no pause longer than `pause_s` between them."""
    breaks = [i for i in range(1, len(spans)) if spans[i].start_s - spans[i - 1].end_s > pause_s]
    edges = [0, *breaks, len(spans)]
    return [(a, b) for a, b in pairwise(edges) if a < b]


def _gather(heard: Sequence[_Heard], enough_s: float) -> _Heard:
    """Return the sum of the first stretches, as many as make up `enough_s` seconds."""
    prints, seconds = np.zeros_like(heard[0].prints), 0.0
    for one in heard:
        prints, seconds = prints + one.prints, seconds + one.seconds
        if seconds >= enough_s:
            break
    return _Heard(prints, seconds)
