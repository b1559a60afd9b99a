"""Whisper as the stage `transcribe` uses it: languages of a clip, its words with times, and how well a given text fits it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from catalogs.languages import dialect, whisper_code
from catalogs.models import resolve
from pipeline.records import PCM_RATE, Word
from pipeline.text.match import Support

#: What one call hears, in seconds: the length Whisper was trained on.
WINDOW_S = 30.0
_MOST_TOKENS = 220
# One token alone may not decide: a rare letter costs 12 nats and says no more than a wrong word.
_LEAST_GAIN, _MOST_GAIN = -5.0, 8.0


@dataclass(frozen=True)
class Heard:
    """What was recognised in a clip; times of `words` in seconds from its start. `logprob` is the mean of a token."""

    text: str
    words: list[Word] = field(default_factory=list)
    logprob: float | None = None
    no_speech_p: float | None = None
    compression_ratio: float | None = None
    ends: tuple[float, ...] = ()
    """Where (s) the pieces end that Whisper wrote one after the other."""
    language: str | None = None
    """The language it was told to hear."""


class Recogniser:
    """CTranslate2's Whisper with weights of models.toml. The same clip always gives the same text: no call sees another's."""

    def __init__(self, model: str, device: str = "cpu", compute_type: str = "default", threads: int = 1) -> None:
        from faster_whisper import WhisperModel

        self.model = model
        if compute_type == "default":
            compute_type = "int8" if device == "cpu" else "float16"
        self._whisper: Any = WhisperModel(
            str(resolve(model)), device=device, compute_type=compute_type, cpu_threads=threads, local_files_only=True
        )
        self._silence: Any = None

    @property
    def multilingual(self) -> bool:
        """Whether it knows more than English."""
        return bool(self._whisper.model.is_multilingual)

    def code(self, language: str | None) -> str | None:
        """The code the model has for a language; for a dialect it does not know, that of Chinese. None: it knows neither."""
        known = self._whisper.supported_languages
        for code in (whisper_code(language), "zh" if dialect(language) else None):
            if code in known:
                return code
        return None

    def languages(self, audio: np.ndarray) -> dict[str, float]:
        """Probability of each language (the model's codes) in float32 [S] at 16 kHz, of which the first 30 s are heard."""
        if not self.multilingual:
            return {"en": 1.0}
        _, _, probabilities = self._whisper.detect_language(audio=audio[: round(WINDOW_S * PCM_RATE)])
        return dict(probabilities)

    def transcribe(self, audio: np.ndarray, language: str | None, beam_size: int, temperature: float = 0.0) -> Heard:
        """The words of float32 [S] at 16 kHz, of any length. `language` is one that `code` knows."""
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
        pieces = list(found)
        text = "".join(piece.text for piece in pieces).strip()
        if not pieces:
            return Heard(text, language=language)
        weights = [max(len(piece.tokens), 1) for piece in pieces]
        end = len(audio) / PCM_RATE
        words = [
            Word(
                word.word.strip(),
                float(min(max(word.start, 0.0), end)),
                float(min(max(word.end, 0.0), end)),
                float(word.probability),
            )
            for piece in pieces
            for word in piece.words or []
        ]
        return Heard(
            text,
            words,
            float(np.average([piece.avg_logprob for piece in pieces], weights=weights)),
            max(piece.no_speech_prob for piece in pieces),
            max(piece.compression_ratio for piece in pieces),
            tuple(float(piece.end) for piece in pieces),
            language,
        )

    def support(self, audio: np.ndarray, text: str, language: str | None) -> list[Support] | None:
        """How much float32 [S] at 16 kHz (at most 30 s) supports each word of a text: log probability with the audio before
        the model minus that with silence, token by token. None where the clip or the text is too long for the model."""
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
        # The end of text closes the last word: without it the tokenizer holds back what may go on.
        words, parts = tokenizer.split_to_word_tokens([*tokens, tokenizer.eot])
        found, place = [], 0
        for word, part in zip(words[:-1], parts[:-1], strict=True):
            found.append(Support(word, float(gains[place : place + len(part)].sum()), len(part)))
            place += len(part)
        return found
