"""What has to be known of a recording before it is compared: its speech, how much of it, how loud, how clean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.quality.levels import energy_db, frame_power, snr_db
from pipeline.records import PCM_RATE
from pipeline.speech.vad import FRAME, SpanRules, find_spans, hearing_gain, load_net, speech_probabilities


@dataclass(frozen=True)
class Clip:
    """One file: its digest, its audio, and what the file or the audio says about its origin."""

    sha256: str
    samples: np.ndarray  #: float32 [S] at 16 kHz
    marks: tuple[str, ...] = ()  #: why it is known to be synthetic, e.g. "it states that voxmill 0.1.0 made it"


@dataclass(frozen=True)
class Speech:
    """The speech of a clip without pauses: float32 [S] at 16 kHz, its level and SNR in dB (None: not measurable)."""

    samples: np.ndarray
    level_db: float
    snr_db: float | None

    @property
    def seconds(self) -> float:
        """The length of the speech."""
        return len(self.samples) / PCM_RATE


class SpeechFinder:
    """Silero VAD over whole clips."""

    def __init__(self) -> None:
        self._net: Any = load_net()

    def find(self, samples: np.ndarray) -> Speech:
        """Return the speech of float32 [S] at 16 kHz."""
        pcm = [(np.clip(samples, -1, 1) * 32767).astype(np.int16)]
        spans = find_spans(speech_probabilities(self._net, pcm, hearing_gain(pcm)), SpanRules())
        parts = [samples[first * FRAME : last * FRAME] for first, last, _ in spans]
        speech = np.concatenate([*parts, np.zeros(0, np.float32)]).astype(np.float32)
        power = frame_power(speech)
        return Speech(speech, energy_db(power), snr_db(power if len(speech) else power[:0], frame_power(samples)))
