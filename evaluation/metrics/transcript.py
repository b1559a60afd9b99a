"""What a recognizer hears in takes (`transcript`) and in the recordings of people (`human_transcript`).

These are the only metrics that call a recognizer. Error rates and tempo read their rows, so that a changed text rule costs nothing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from evaluation.metrics.base import Need, Plain, Take, Value, read_clip
from pipeline.speech.faults import find_sounds

if TYPE_CHECKING:
    import numpy as np

    from pipeline.speech.whisper import Recognizer, Transcription

RATE = 16_000
WINDOW_S = 30.0
"""Seconds of audio that Whisper hears at once. Longer audio cannot be part of a batch."""
REST_S = 1.0
"""Seconds of sound after the last word, from which the rest is recognized by itself."""
_MOST_THREADS = 4

Device = Literal["auto", "cpu", "cuda"]

WORD = pa.struct([("word", pa.string()), ("start", pa.float64()), ("end", pa.float64()), ("p", pa.float64())])
SCHEMA = pa.schema(
    [
        pa.field("hypothesis", pa.string()),
        pa.field("rest", pa.string()),
        pa.field("language", pa.string()),
        pa.field("model", pa.string()),
        pa.field("decode", pa.string()),
        pa.field("compression_ratio", pa.float64()),
        pa.field("no_speech_p", pa.float64()),
        pa.field("logprob", pa.float64()),
        pa.field("heard_s", pa.float64()),
        pa.field("last_word_s", pa.float64()),
        pa.field("words", pa.list_(WORD)),
    ]
)
"""`rest`: what is recognized after the last word, if there is more than `REST_S` of sound: Whisper hears a repeated sentence
once. Error rates do not count it; `tempo` does. `language`: what the recognizer was set to. `decode`: beam, number format and
device. `heard_s`: seconds of audio. `last_word_s`: end of the last word, None without words. `words`: with times in seconds."""


class WhisperTranscript(Plain):
    """Greedy or beam decoding at temperature 0, language given, without the text before. No speech detection."""

    name = "transcript"
    version = 1
    values: tuple[Value, ...] = ()
    schema = SCHEMA

    def __init__(
        self,
        model: str = "whisper-base",
        beam: int = 5,
        device: Device = "auto",
        compute_type: str = "default",
    ) -> None:
        """`model`: a name of models.toml. `compute_type`: of CTranslate2; default int8 on a CPU and float16 on a GPU."""
        self.weights = (model,)
        self._model = model
        self._beam = beam
        self._device: Device = device
        self._compute_type = compute_type
        self._recognizer: Recognizer | None = None

    def settings(self) -> dict[str, Any]:
        """See `Metric`. The device is not part of it: it is in each row (`decode`)."""
        return {
            "model": self._model,
            "beam": self._beam,
            "temperature": 0,
            "condition_on_previous_text": False,
            "rest_s": REST_S,
            "compute_type": self._compute_type,
        }

    def load(self) -> None:
        """Load the recognizer. Raises WeightsMissing."""
        from pipeline.speech.whisper import Recognizer

        self._recognizer = _shared(Recognizer, self._model, self._device, self._compute_type)

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        """See `Metric`. None for a language that the recognizer does not know."""
        return self.recognize([take.audio(RATE) for take in takes], [take.item.language for take in takes])

    def recognize(self, clips: Sequence[np.ndarray], languages: Sequence[str]) -> list[dict[str, Any] | None]:
        """Return one row per clip, float32 [S] at 16 kHz; None for a language that the recognizer does not know."""
        assert self._recognizer is not None
        found: dict[int, Transcription] = {}
        known = [index for index, language in enumerate(languages) if self._recognizer.code(language)]
        batches: dict[str, list[int]] = {}
        for index in known:
            if self._recognizer.device == "cuda" and RATE / 10 <= len(clips[index]) <= WINDOW_S * RATE:
                batches.setdefault(languages[index], []).append(index)
            else:
                found[index] = self._recognizer.transcribe(clips[index], languages[index], self._beam, 0.0)
        for language, members in batches.items():
            heard = self._recognizer.transcribe_batch([clips[index] for index in members], language, self._beam)
            found.update(zip(members, heard, strict=True))
        return [
            self._row(found[index], languages[index], clips[index]) if index in found else None
            for index in range(len(clips))
        ]

    def _row(self, heard: Transcription, language: str, clip: np.ndarray) -> dict[str, Any]:
        assert self._recognizer is not None
        return {
            "hypothesis": heard.text,
            "rest": self._rest(heard, language, clip),
            "language": self._recognizer.code(language),
            "model": self._model,
            "decode": f"beam {self._beam}, {self._recognizer.compute_type}, {self._recognizer.device}",
            "compression_ratio": heard.compression_ratio,
            "no_speech_p": heard.no_speech_p,
            "logprob": heard.logprob,
            "heard_s": len(clip) / RATE,
            "last_word_s": heard.words[-1].end if heard.words else None,
            "words": [{"word": w.word, "start": w.start, "end": w.end, "p": w.p} for w in heard.words],
        }

    def _rest(self, heard: Transcription, language: str, clip: np.ndarray) -> str:
        """Return the words after the last word that was heard, if there is sound."""
        assert self._recognizer is not None
        if not heard.words or find_sounds(clip).sound_after(heard.words[-1].end) <= REST_S:
            return ""
        rest = clip[round(heard.words[-1].end * RATE) :]
        return self._recognizer.transcribe(rest, language, self._beam, 0.0).text


class HumanTranscript(WhisperTranscript):
    """The recording of a person, once per item: what is left of its errors is the recognizer's floor."""

    name = "human_transcript"
    options_of = "transcript"
    """The metric whose options it takes if it is given none."""
    needs: frozenset[Need] = frozenset({"human"})

    def group(self, take: Take) -> str | None:
        """Takes of one item share the recording."""
        return take.item.id

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        """See `Metric`. Raises EvaluationError for a recording that cannot be decoded."""
        human = takes[0].item.human
        assert human is not None
        (row,) = self.recognize([read_clip(human, RATE)], [takes[0].item.language])
        return [row] * len(takes)


@functools.lru_cache(maxsize=1)
def _shared(kind: type[Recognizer], model: str, device: Device, compute_type: str) -> Recognizer:
    """Return one recognizer for both metrics."""
    threads = min(_MOST_THREADS, len(os.sched_getaffinity(0)))
    return kind(model, device, compute_type, threads)
