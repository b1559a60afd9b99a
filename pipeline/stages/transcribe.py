"""Find the language, the words and their times with Whisper."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from pydantic import Field

from catalogs.languages import text_unit, whisper_code
from catalogs.models import resolve
from pipeline.records import PCM_RATE, Recording, Segment, Session, Word
from pipeline.stage import Resources, Stage, StageConfig
from pipeline.text import count_characters, count_syllables, error_rate, share_out


class TranscribeConfig(StageConfig):
    """Settings of `transcribe`."""

    model: str = "whisper-base"
    """Name of the CTranslate2 weights in models.toml."""
    beam_size: int = Field(5, ge=1)
    language_windows: int = Field(4, ge=1)
    """Windows of up to 30 s of speech, spread over a recording, that vote for its language."""
    given_cer: float = Field(0.5, ge=0)
    """A given transcript is used where its character error rate against the recognised text is at most this; beyond it the
    recognised text stays."""
    threads: int = Field(2, ge=1)
    device: str = "cpu"
    compute_type: str = "default"
    """CTranslate2's; default: int8 on the CPU, float16 on a GPU."""


class Transcribe(Stage[TranscribeConfig]):
    """Segments -> language, text, words with times (from the segment's start), and how sure the recogniser is.

    The paper transcribes with Whisper and aligns. Each segment is decoded on its own at temperature 0 and without the text
    before it, so that the same segment always gives the same text and an error cannot spread. The language is that of the
    recording, by the mean probability over windows of its speech; a language given with the source counts as sure. A
    transcript given with the source is shared out over the recording's segments and takes the place of what was recognised
    (`text_source` "given"); `agreement_cer` tells how far the two differ.
    `chars_per_s` and `rate_sps` (syllables) are per second of the segment without its head and tail silence as the words
    tell it.
    """

    name = "transcribe"
    version = "1"
    config_type = TranscribeConfig
    inputs = ("windows", "speech", "segments")
    outputs = (
        "segment.language",
        "segment.language_p",
        "segment.text",
        "segment.text_source",
        "segment.words",
        "segment.asr_logprob",
        "segment.no_speech_p",
        "segment.compression_ratio",
        "segment.agreement_cer",
        "segment.chars_per_s",
        "segment.rate_sps",
    )
    resources = Resources(cpus=1.0, memory_bytes=1024**3)

    def weights(self) -> tuple[str, ...]:
        return (self.config.model,)

    def load(self) -> None:
        from faster_whisper import WhisperModel

        compute_type = self.config.compute_type
        if compute_type == "default":
            compute_type = "int8" if self.config.device == "cpu" else "float16"
        self._whisper: Any = WhisperModel(
            str(resolve(self.config.model)),
            device=self.config.device,
            compute_type=compute_type,
            cpu_threads=self.config.threads,
            local_files_only=True,
        )

    def __call__(self, session: Session) -> Session:
        languages: dict[str, tuple[str, float]] = {}
        self.for_each(session, session.usable(), lambda r: languages.update(self._language(session, r)))
        alive = [s for s in session.alive() if s.source_id in languages]
        self.for_each(session, alive, lambda s: self._transcribe(session, s, *languages[s.source_id]))
        self.for_each(session, session.usable(), lambda r: self._use_given(session, r))
        for segment in alive:
            if segment.words and segment.text:
                spoken = max(segment.words[-1].end - segment.words[0].start, 0.2)
                segment.chars_per_s = count_characters(segment.text) / spoken
                segment.rate_sps = count_syllables(segment.text) / spoken
        return session

    def _language(self, session: Session, recording: Recording) -> dict[str, tuple[str, float]]:
        """{source id: (language, probability)}; empty where there is nothing to hear."""
        source = recording.source
        if source.language and whisper_code(source.language) in self._whisper.supported_languages:
            return {source.source_id: (source.language, 1.0)}
        if source.language:
            session.notices.append(
                f"{self.config.model} does not know the language {source.language}: it is detected instead"
            )
        if not self._whisper.model.is_multilingual:
            return {source.source_id: ("en", 1.0)}
        votes: dict[str, float] = defaultdict(float)
        windows = speech_windows(session, source.source_id, self.config.language_windows)
        for window in windows:
            _, _, probabilities = self._whisper.detect_language(audio=window)
            for language, p in probabilities:
                votes[language] += p / len(windows)
        if not votes:
            return {}
        language = max(votes, key=lambda name: votes[name])
        return {source.source_id: (language, votes[language])}

    def _transcribe(self, session: Session, segment: Segment, language: str, p: float) -> None:
        audio = session.audio(segment)
        found, _ = self._whisper.transcribe(
            audio,
            language=whisper_code(language),
            beam_size=self.config.beam_size,
            temperature=0.0,
            condition_on_previous_text=False,
            word_timestamps=True,
            vad_filter=False,
        )
        pieces = list(found)
        segment.language, segment.language_p = language, p
        segment.text = "".join(piece.text for piece in pieces).strip()
        segment.text_source = "asr"
        if pieces:
            weights = [max(len(piece.tokens), 1) for piece in pieces]
            segment.asr_logprob = float(np.average([piece.avg_logprob for piece in pieces], weights=weights))
            segment.no_speech_p = max(piece.no_speech_prob for piece in pieces)
            segment.compression_ratio = max(piece.compression_ratio for piece in pieces)
        end = segment.duration_s
        segment.words = [
            Word(
                word.word.strip(),
                float(min(max(word.start, 0.0), end)),
                float(min(max(word.end, 0.0), end)),
                float(word.probability),
            )
            for piece in pieces
            for word in piece.words or []
        ]

    def _use_given(self, session: Session, recording: Recording) -> None:
        """Share out the transcript that came with a recording over its segments."""
        source = recording.source
        segments = [s for s in session.alive() if s.source_id == source.source_id and s.text is not None]
        if not source.text or not segments:
            return
        heard = [str(segment.text) for segment in segments]
        for segment, text in zip(
            segments, share_out(source.text, heard, text_unit(segment_language(segments))), strict=True
        ):
            segment.agreement_cer = error_rate(str(segment.text), text)
            if text and segment.agreement_cer <= self.config.given_cer:
                segment.text, segment.text_source = text, "given"


def segment_language(segments: list[Segment]) -> str | None:
    """The language of a recording's segments."""
    return next((segment.language for segment in segments if segment.language), None)


def speech_windows(session: Session, source_id: str, count: int) -> list[np.ndarray]:
    """Up to `count` windows of at most 30 s of a recording's speech, evenly spread: float32 [S] at 16 kHz."""
    segments = [segment for segment in session.alive() if segment.source_id == source_id]
    if not segments:
        return []
    chosen = sorted({round(i) for i in np.linspace(0, len(segments) - 1, min(count, len(segments)))})
    windows = []
    for index in chosen:
        parts: list[np.ndarray] = []
        length = 0
        # A short segment says little about its language: what follows it is added.
        for segment in segments[index:]:
            if length >= 8 * PCM_RATE:
                break
            parts.append(session.audio(segment))
            length += len(parts[-1])
        windows.append(np.concatenate(parts)[: 30 * PCM_RATE])
    return windows
