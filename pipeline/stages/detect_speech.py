"""Find speech with Silero VAD."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from catalogs.weights.registry import resolve_file
from pipeline.quality.levels import decibel, frame_power
from pipeline.records import PCM_RATE, Recording, Session, SpeechSpan
from pipeline.stage import Resources, Stage, StageConfig

FRAME = 512
"""Samples per speech probability: 32 ms at 16 kHz."""
_CONTEXT = 64
# If the loudest 1 % of a recording's frames is below _QUIET_DB, the network receives it amplified to _RAISED_DB, by at most
# _MOST_DB: the network misses speech below about -60 dB.
_QUIET_DB, _RAISED_DB, _MOST_DB = -45.0, -25.0, 60.0


class DetectSpeechConfig(StageConfig):
    """Settings of `detect_speech`; times in seconds."""

    threshold: float = Field(0.5, gt=0, lt=1)
    """Speech begins at a frame with at least this probability."""
    leave_threshold: float = Field(0.35, gt=0, lt=1)
    """Speech ends at a frame with a lower probability than this."""
    min_speech_s: float = Field(0.25, ge=0)
    """Shorter stretches are not counted as speech (clicks, coughs)."""
    min_silence_s: float = Field(0.2, ge=0)
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

    def __call__(self, session: Session) -> Session:
        self.for_each(session, session.usable(), lambda recording: self._detect(session, recording))
        return session

    def _detect(self, session: Session, recording: Recording) -> None:
        source_id = recording.source.source_id
        pcm = [window.pcm for window in session.windows if window.source_id == source_id]
        probabilities = speech_probabilities(self._net, pcm, hearing_gain(pcm))
        spans = find_spans(probabilities, self.config)
        duration = sum(map(len, pcm)) / PCM_RATE
        for first, last, p in spans:
            end = min(last * FRAME / PCM_RATE, duration)
            session.speech.append(SpeechSpan(source_id, first * FRAME / PCM_RATE, end, p))
        if not spans:
            recording.status = "empty"


def load_net() -> Any:
    """Return Silero VAD as a session of onnxruntime on one core. Raises WeightsMissing."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = resolve_file("silero-vad", ".onnx")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def hearing_gain(windows: list[np.ndarray]) -> float:
    """Return the factor for the audio of a recording: 1, or more if even the loudest 1 % of its frames is very quiet."""
    power = np.concatenate([frame_power(pcm / np.float32(32768)) for pcm in windows] or [np.zeros(1)])
    level = decibel(float(np.sort(power)[-max(1, len(power) // 100) :].mean()))
    return 1.0 if level >= _QUIET_DB else float(10 ** (min(_RAISED_DB - level, _MOST_DB) / 20))


def speech_probabilities(net: Any, windows: list[np.ndarray], gain: float = 1.0) -> np.ndarray:
    """float32 [frames]: speech probability of each 32 ms of contiguous int16 windows (the last frame is zero padded)."""
    state = np.zeros((2, 1, 128), dtype=np.float32)
    rate = np.array(PCM_RATE, dtype=np.int64)
    frame = np.zeros((1, _CONTEXT + FRAME), dtype=np.float32)
    rest = np.zeros(0, dtype=np.float32)
    found: list[float] = []
    for index, pcm in enumerate(windows):
        audio = np.concatenate([rest, np.clip(pcm * np.float32(gain / 32768), -1.0, 1.0)])
        if index == len(windows) - 1 and len(audio) % FRAME:
            audio = np.concatenate([audio, np.zeros(FRAME - len(audio) % FRAME, dtype=np.float32)])
        whole = len(audio) // FRAME * FRAME
        for start in range(0, whole, FRAME):
            frame[0, _CONTEXT:] = audio[start : start + FRAME]
            output, state = net.run(None, {"input": frame, "state": state, "sr": rate})
            frame[0, :_CONTEXT] = frame[0, -_CONTEXT:]
            found.append(float(output[0, 0]))
        rest = audio[whole:]
    return np.array(found, dtype=np.float32)


def find_spans(probabilities: np.ndarray, config: DetectSpeechConfig) -> list[tuple[int, int, float]]:
    """(first frame, last frame + 1, mean probability) of each stretch of speech, by two thresholds with hysteresis."""
    min_speech = config.min_speech_s * PCM_RATE / FRAME
    min_silence = config.min_silence_s * PCM_RATE / FRAME
    spans: list[tuple[int, int, float]] = []
    start: int | None = None
    quiet: int | None = None
    for index, p in enumerate([*probabilities.tolist(), *([0.0] * (int(min_silence) + 2))]):
        if p >= config.threshold:
            start = index if start is None else start
            quiet = None
        elif start is not None and p < config.leave_threshold:
            quiet = index if quiet is None else quiet
            if index - quiet >= min_silence:
                if quiet - start >= min_speech:
                    spans.append((start, quiet, float(probabilities[start:quiet].mean())))
                start = quiet = None
    return spans
