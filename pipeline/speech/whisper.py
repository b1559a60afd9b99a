"""Whisper for the stage `transcribe`: languages of a clip, its words with times, and how well a given text fits it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from catalogs.vocabulary.languages import dialect, whisper_code
from catalogs.weights.registry import resolve
from pipeline.records import PCM_RATE, Word
from pipeline.runtime.devices import Device, pick_device
from pipeline.text.match import WordSupport

#: Seconds of audio per call: the length that Whisper was trained on.
WINDOW_S = 30.0
_MOST_TOKENS = 220
# One token alone must not decide: a rare letter costs 12 nats and is not worse evidence than a wrong word.
_LEAST_GAIN, _MOST_GAIN = -5.0, 8.0
_FRAMES_PER_S = 100
#: A result with a higher compression ratio may be a loop, one with a lower mean log probability may be anything.
_LOOPS, _DOUBT = 2.0, -0.7
#: A window without speech by both of these has no words, as in faster-whisper.
_NO_SPEECH, _NO_SPEECH_LOGPROB = 0.6, -1.0
#: Audio (s) after the last piece that may be left unrecognized.
_REST_S = 1.0
_SURE = 0.75
"""Probability of a language from which that of a shortened window counts."""


@dataclass(frozen=True)
class Transcription:
    """What was recognized in a clip; times of `words` in seconds from its start. `logprob` is the mean per token."""

    text: str
    words: list[Word] = field(default_factory=list)
    logprob: float | None = None
    no_speech_p: float | None = None
    compression_ratio: float | None = None
    ends: tuple[float, ...] = ()
    """Ends (s) of the pieces that Whisper wrote one after the other."""
    language: str | None = None
    """The language that decoding was set to."""


class Recognizer:
    """CTranslate2's Whisper with weights of models.toml. No clip sees the text of another."""

    def __init__(
        self,
        model: str,
        device: Device = "auto",
        compute_type: str = "default",
        threads: int = 1,
        window_margin_s: float | None = None,
    ) -> None:
        """window_margin_s: see `transcribe`."""
        self.model = model
        self._margin_s = window_margin_s
        import ctranslate2

        from pipeline.speech.whisper_model import Model

        self.device = pick_device(device, ctranslate2.get_cuda_device_count)
        if compute_type == "default":
            compute_type = "int8" if self.device == "cpu" else "float16"
        self.compute_type = compute_type
        self._whisper: Any = Model(
            str(resolve(model)),
            device=self.device,
            compute_type=compute_type,
            cpu_threads=threads,
            local_files_only=True,
        )
        self._silence: Any = None

    @property
    def multilingual(self) -> bool:
        """Whether the model supports more languages than English."""
        return bool(self._whisper.model.is_multilingual)

    def code(self, language: str | None) -> str | None:
        """Return the model's code for a language; for a dialect that it does not support, that of Chinese. None if it
        supports neither."""
        known = self._whisper.supported_languages
        for code in (whisper_code(language), "zh" if dialect(language) else None):
            if code in known:
                return code
        return None

    def languages(self, audio: np.ndarray) -> dict[str, float]:
        """Return the probability of each language (the model's codes) in the first 30 s of float32 [S] at 16 kHz.

        A short clip is detected in a shortened window, as in `transcribe`; if that leaves doubt, in the whole window.
        """
        if not self.multilingual:
            return {"en": 1.0}
        audio = audio[: round(WINDOW_S * PCM_RATE)]
        if self._is_short(audio):
            with self._shortened():
                found = self._languages(audio)
            if max(found.values()) >= _SURE:
                return found
        return self._languages(audio)

    def _languages(self, audio: np.ndarray) -> dict[str, float]:
        _, _, probabilities = self._whisper.detect_language(audio=audio)
        return dict(probabilities)

    def _is_short(self, audio: np.ndarray) -> bool:
        """Return True if a clip and the margin after it are shorter than the window."""
        return self._margin_s is not None and len(audio) < (WINDOW_S - self._margin_s) * PCM_RATE

    @contextmanager
    def _shortened(self) -> Iterator[None]:
        """Compute only the margin of the padding."""
        assert self._margin_s is not None
        self._whisper.margin_frames = round(self._margin_s * _FRAMES_PER_S)
        try:
            yield
        finally:
            self._whisper.margin_frames = None

    def transcribe(
        self, audio: np.ndarray, language: str | None, beam_size: int, temperature: float = 0.0
    ) -> Transcription:
        """Return the words of float32 [S] at 16 kHz, of any length. `language` is one that `code` supports.

        Whisper processes 30 s at a time, of which a clip of 5 s leaves 25 empty, and the encoder takes most of the time.
        With a margin, only that part of the padding is computed (a third less work at 6 s). Some clips then end in a loop
        of one word, so a doubtful result is computed again with the whole window.
        """
        if self._is_short(audio):
            with self._shortened():
                heard = self._transcribe(audio, language, beam_size, temperature)
            if heard.words and (heard.compression_ratio or 0.0) < _LOOPS and (heard.logprob or 0.0) > _DOUBT:
                return heard
        return self._transcribe(audio, language, beam_size, temperature)

    def _transcribe(self, audio: np.ndarray, language: str | None, beam_size: int, temperature: float) -> Transcription:
        found, _ = self._whisper.transcribe(
            audio,
            language=self.code(language),
            beam_size=beam_size,
            best_of=1,
            temperature=temperature,
            condition_on_previous_text=False,
            word_timestamps=True,
            vad_filter=False,
        )
        pieces = []
        for piece in found:
            pieces.append(piece)
            if self._whisper.margin_frames is not None and piece.compression_ratio >= _LOOPS:
                break  # A loop, which `transcribe` computes again: the windows after it would be for nothing.
        return _transcription(pieces, len(audio) / PCM_RATE, language)

    def transcribe_batch(
        self, clips: Sequence[np.ndarray], language: str | None, beam_size: int, size: int = 16
    ) -> list[Transcription]:
        """Return the words of each of float32 [S] at 16 kHz, up to 30 s each, with `size` clips per pass: for GPUs.

        The result is that of `transcribe` up to rounding. A clip whose words end more than a second before it does is
        recognized again by itself: `transcribe` continues after a sentence that ended a window, and a batch does not.
        """
        from faster_whisper import BatchedInferencePipeline

        ends = np.cumsum([len(clip) for clip in clips])
        # Half a sample more: the library truncates seconds to samples.
        spans = [
            {"start": (end - len(clip) + 0.5) / PCM_RATE, "end": (end + 0.5) / PCM_RATE}
            for end, clip in zip(ends, clips, strict=True)
        ]
        found, _ = BatchedInferencePipeline(self._whisper).transcribe(
            np.concatenate([*clips, np.zeros(1, np.float32)]),
            language=self.code(language),
            beam_size=beam_size,
            temperature=0.0,
            without_timestamps=False,
            word_timestamps=True,
            vad_filter=False,
            clip_timestamps=spans,
            batch_size=size,
        )
        # A piece says by its seek in which clip it is, in frames. Its times may lie behind the end of the clip.
        by_seek: dict[int, list[Any]] = {}
        for piece in found:
            if not (piece.no_speech_prob > _NO_SPEECH and piece.avg_logprob < _NO_SPEECH_LOGPROB):
                by_seek.setdefault(piece.seek, []).append(piece)
        answers = []
        for clip, end in zip(clips, ends, strict=True):
            start_s, seconds = (end - len(clip)) / PCM_RATE, len(clip) / PCM_RATE
            heard = _transcription(by_seek.get(int(start_s * _FRAMES_PER_S), []), seconds, language, start_s)
            complete = bool(heard.ends) and heard.ends[-1] > seconds - _REST_S
            answers.append(heard if complete else self._transcribe(clip, language, beam_size, 0.0))
        return answers

    def support(self, audio: np.ndarray, text: str, language: str | None) -> list[WordSupport] | None:
        """Return how much float32 [S] at 16 kHz (at most 30 s) supports each word of a text: log probability given the
        audio minus that given silence, token by token. None if the clip or the text is too long for the model."""
        from faster_whisper.audio import pad_or_trim
        from faster_whisper.tokenizer import Tokenizer

        whisper = self._whisper
        tokenizer = Tokenizer(whisper.hf_tokenizer, self.multilingual, task="transcribe", language=self.code(language))
        tokens = tokenizer.encode(" " + text.strip())
        if not tokens or len(tokens) > _MOST_TOKENS or len(audio) > WINDOW_S * PCM_RATE:
            return None
        if self._silence is None:
            self._silence = whisper.encode(pad_or_trim(whisper.feature_extractor(np.zeros(PCM_RATE, np.float32))))
        features = whisper.feature_extractor(audio)
        start = list(tokenizer.sot_sequence)
        logs = []
        for encoded, frames in ((whisper.encode(pad_or_trim(features)), features.shape[-1]), (self._silence, 100)):
            (result,) = whisper.model.align(encoded, start, [tokens], frames)
            logs.append(np.log(np.maximum(np.asarray(result.text_token_probs, dtype=np.float64), 1e-6)))
        gains = np.clip(logs[0] - logs[1], _LEAST_GAIN, _MOST_GAIN)
        # The end-of-text token closes the last word. Without it the tokenizer holds back a word that may continue.
        words, parts = tokenizer.split_to_word_tokens([*tokens, tokenizer.eot])
        found, place = [], 0
        for word, part in zip(words[:-1], parts[:-1], strict=True):
            found.append(WordSupport(word, float(gains[place : place + len(part)].sum()), len(part)))
            place += len(part)
        return found


def _transcription(pieces: Sequence[Any], end: float, language: str | None, start_s: float = 0.0) -> Transcription:
    """Return the pieces of a clip of `end` seconds as one. Their times begin at `start_s`."""
    text = "".join(piece.text for piece in pieces).strip()
    if not pieces:
        return Transcription(text, language=language)
    weights = [max(len(piece.tokens), 1) for piece in pieces]
    words = [
        Word(
            word.word.strip(),
            float(min(max(word.start - start_s, 0.0), end)),
            float(min(max(word.end - start_s, 0.0), end)),
            float(word.probability),
        )
        for piece in pieces
        for word in piece.words or []
    ]
    return Transcription(
        text,
        words,
        float(np.average([piece.avg_logprob for piece in pieces], weights=weights)),
        max(piece.no_speech_prob for piece in pieces),
        max(piece.compression_ratio for piece in pieces),
        tuple(float(piece.end) - start_s for piece in pieces),
        language,
    )
