"""Silero VAD: the probability of speech every 32 ms, and the stretches of speech that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from catalogs.weights.registry import resolve_file
from pipeline.quality.levels import decibel, frame_power
from pipeline.records import PCM_RATE

FRAME = 512
"""Samples per speech probability: 32 ms at 16 kHz."""
_CONTEXT = 64
# If the loudest 1 % of a recording's frames is below _QUIET_DB, the network receives it amplified to _RAISED_DB, by at most
# _MOST_DB: the network misses speech below about -60 dB.
_QUIET_DB, _RAISED_DB, _MOST_DB = -45.0, -25.0, 60.0


@dataclass(frozen=True)
class SpanRules:
    """When speech begins and ends: probabilities, and times in seconds."""

    threshold: float = 0.5
    leave_threshold: float = 0.35
    min_speech_s: float = 0.25
    min_silence_s: float = 0.2


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


def find_spans(probabilities: np.ndarray, rules: SpanRules) -> list[tuple[int, int, float]]:
    """(first frame, last frame + 1, mean probability) of each stretch of speech, by two thresholds with hysteresis."""
    min_speech = rules.min_speech_s * PCM_RATE / FRAME
    min_silence = rules.min_silence_s * PCM_RATE / FRAME
    spans: list[tuple[int, int, float]] = []
    start: int | None = None
    quiet: int | None = None
    for index, p in enumerate([*probabilities.tolist(), *([0.0] * (int(min_silence) + 2))]):
        if p >= rules.threshold:
            start = index if start is None else start
            quiet = None
        elif start is not None and p < rules.leave_threshold:
            quiet = index if quiet is None else quiet
            if index - quiet >= min_silence:
                if quiet - start >= min_speech:
                    spans.append((start, quiet, float(probabilities[start:quiet].mean())))
                start = quiet = None
    return spans
