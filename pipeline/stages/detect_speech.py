"""Find speech with Silero VAD."""

from __future__ import annotations

from pydantic import Field

from pipeline.records import PCM_RATE, Recording, Session, SpeechSpan
from pipeline.speech.vad import FRAME, SpanRules, find_spans, hearing_gain, load_net, speech_probabilities
from pipeline.stage import Resources, Stage, StageConfig

_RULES = SpanRules()


class DetectSpeechConfig(StageConfig):
    """Settings of `detect_speech`; times in seconds."""

    threshold: float = Field(_RULES.threshold, gt=0, lt=1)
    """Speech begins at a frame with at least this probability."""
    leave_threshold: float = Field(_RULES.leave_threshold, gt=0, lt=1)
    """Speech ends at a frame with a lower probability than this."""
    min_speech_s: float = Field(_RULES.min_speech_s, ge=0)
    """Shorter stretches are not counted as speech (clicks, coughs)."""
    min_silence_s: float = Field(_RULES.min_silence_s, ge=0)
    """Shorter pauses do not end a stretch."""


class DetectSpeech(Stage[DetectSpeechConfig]):
    """Windows -> stretches of speech (`session.speech`), in seconds of their recording.

    The paper cuts by voice activity. The model's state is carried from window to window, so that the spans of a recording
    do not depend on its windows. A very quiet recording is amplified as a whole for the detection and stored unchanged. A
    recording without speech gets the status `empty`.
    """

    name = "detect_speech"
    version = "1"
    config_type = DetectSpeechConfig
    inputs = ("windows",)
    outputs = ("speech",)
    resources = Resources(cpus=0.02)

    def weights(self) -> tuple[str, ...]:
        return ("silero-vad",)

    def load(self) -> None:
        self._net = load_net()
        names = ("threshold", "leave_threshold", "min_speech_s", "min_silence_s")
        self._rules = SpanRules(**{name: getattr(self.config, name) for name in names})

    def __call__(self, session: Session) -> Session:
        self.for_each(session, session.usable(), lambda recording: self._detect(session, recording))
        return session

    def _detect(self, session: Session, recording: Recording) -> None:
        source_id = recording.source.source_id
        pcm = [window.pcm for window in session.windows if window.source_id == source_id]
        probabilities = speech_probabilities(self._net, pcm, hearing_gain(pcm))
        spans = find_spans(probabilities, self._rules)
        duration = sum(map(len, pcm)) / PCM_RATE
        for first, last, p in spans:
            end = min(last * FRAME / PCM_RATE, duration)
            session.speech.append(SpeechSpan(source_id, first * FRAME / PCM_RATE, end, p))
        if not spans:
            recording.status = "empty"
