"""Check a recorded statement: the words, the voice, the recording itself. The result is a record.

What it cannot know: whether the statement is a replay, or was spoken by a synthetic voice that has no mark of ours. It
documents good faith and catches careless use; it is not a lock (docs/consent.md).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.speech.whisper import Recognizer
from pipeline.voice.consent.challenge import Challenge, stamp
from pipeline.voice.consent.clips import Clip, Speech, SpeechFinder
from pipeline.voice.consent.record import Record, Verdict, record_id
from pipeline.voice.consent.spoken_words import MOST_CER, MOST_MISSING, Spoken, compare_sentence
from pipeline.voice.consent.voices import (
    STRONG,
    best_encoder,
    cosine,
    least_of_stretches,
    limit,
    voiceprint,
    window_prints,
)
from pipeline.voice.encoders import EncoderName, load_encoder

RECOGNIZER = "whisper-base"
LEAST_STATEMENT_S = 4.0
"""Shortest speech of a statement, in seconds."""
LEAST_LEVEL_DB = -50.0
"""Lowest mean level of the statement's speech, in dB of full scale."""
LEAST_SNR_DB = 10.0
_BEAM = 5
_SOME_S = 0.5
"""Speech below which nothing is recognized and compared."""


@dataclass(frozen=True)
class _Compared:
    """One reference: its speech (s), the cosine, and the least one for these lengths; None if it is too short."""

    seconds: float
    cosine: float | None
    least: float
    stretch: float | None  #: the cosine of its least similar stretch


class ConsentChecker:
    """Holds the models: speech detection, recognition, and the speaker encoder."""

    def __init__(self, encoder: EncoderName | None = None, recognizer: Recognizer | None = None) -> None:
        """encoder: ge2e or ecapa; the strongest one here if not given. Raises WeightsMissing."""
        self.encoder: EncoderName = encoder or best_encoder()
        self._speech = SpeechFinder()
        self._recognizer = recognizer or Recognizer(RECOGNIZER, device="cpu")
        self._voices = load_encoder(self.encoder, "auto")

    def check(
        self, challenge: Challenge, statement: Clip, references: Sequence[Clip], now: datetime | None = None
    ) -> Record:
        """Return the record of a statement. It is refused with all reasons, not with the first one.

        The caller claims the challenge of an accepted one, and stores the record.
        """
        if not references:
            raise ValueError("no reference is given: a consent is for the voice of a recording")
        now = now or datetime.now(UTC)
        speech = self._speech.find(statement.samples)
        transcript = self._transcript(statement, speech, challenge.language)
        spoken = compare_sentence(transcript, challenge.sentence, challenge.words, challenge.language)
        compared = self._compare(speech, references)
        reasons = [
            *_challenge_reasons(challenge, statement, now),
            *_mark_reasons(statement, references),
            *_recording_reasons(speech),
            *_word_reasons(spoken, transcript),
            *_voice_reasons(compared, speech, self.encoder),
        ]
        digests = tuple(clip.sha256 for clip in references)
        verdict: Verdict = "refused" if reasons else "verified" if self.encoder in STRONG else "plausible"
        return Record(
            id=record_id(statement.sha256, digests, challenge.id),
            verdict=verdict,
            reasons=tuple(reasons),
            speaker=challenge.speaker,
            speaker_id=challenge.speaker_id,
            recipient=challenge.recipient,
            purposes=challenge.purposes,
            language=challenge.language,
            challenge=challenge.id,
            sentence=challenge.sentence,
            words=challenge.words,
            missing_words=spoken.missing,
            transcript=transcript,
            cer=round(spoken.cer, 4) if transcript else None,
            statement_sha256=statement.sha256,
            statement_s=round(speech.seconds, 2),
            level_db=round(speech.level_db, 1),
            snr_db=None if speech.snr_db is None else round(speech.snr_db, 1),
            reference_sha256=digests,
            reference_s=tuple(round(one.seconds, 2) for one in compared),
            cosine=tuple(None if one.cosine is None else round(one.cosine, 4) for one in compared),
            least_cosine=tuple(round(one.least, 4) for one in compared),
            stretch_cosine=tuple(None if one.stretch is None else round(one.stretch, 4) for one in compared),
            encoder=self.encoder,
            recognizer=RECOGNIZER,
            at=stamp(now),
            expires=challenge.consent_expires,
            tool=_tool(),
        )

    def _transcript(self, statement: Clip, speech: Speech, language: str) -> str:
        if speech.seconds < _SOME_S:
            return ""
        return self._recognizer.transcribe(statement.samples, language, _BEAM).text

    def _compare(self, speech: Speech, references: Sequence[Clip]) -> list[_Compared]:
        bound = limit(self.encoder)
        ours = voiceprint(window_prints(self._voices, speech.samples)) if speech.seconds >= _SOME_S else None
        found = []
        for clip in references:
            other = self._speech.find(clip.samples)
            least = bound.least_cosine(speech.seconds, other.seconds)
            if ours is None or other.seconds < bound.least_s:
                found.append(_Compared(other.seconds, None, least, None))
                continue
            windows = window_prints(self._voices, other.samples)
            stretch = least_of_stretches(ours, windows, bound.stretch)
            found.append(_Compared(other.seconds, cosine(ours, voiceprint(windows)), least, stretch))
        return found


def _challenge_reasons(challenge: Challenge, statement: Clip, now: datetime) -> Iterator[str]:
    if challenge.statement_sha256 is not None:
        if challenge.statement_sha256 != statement.sha256:
            yield "the sentence was used up by another recording: ask for a new one"
    elif challenge.is_stale(now):
        yield f"the sentence was valid until {challenge.expires}: ask for a new one"


def _mark_reasons(statement: Clip, references: Sequence[Clip]) -> Iterator[str]:
    yield from (f"the statement is synthetic: {mark}" for mark in statement.marks)
    for number, clip in enumerate(references, 1):
        name = "the reference" if len(references) == 1 else f"reference {number}"
        yield from (f"{name} is synthetic: {mark}" for mark in clip.marks)
        if clip.sha256 == statement.sha256:
            yield f"{name} is the statement itself: give another recording of the speaker"


def _recording_reasons(speech: Speech) -> Iterator[str]:
    if speech.seconds < LEAST_STATEMENT_S:
        yield f"the statement has {speech.seconds:.1f} s of speech: at least {LEAST_STATEMENT_S:g} s are needed"
    if speech.seconds < _SOME_S:
        return
    if speech.level_db < LEAST_LEVEL_DB:
        yield f"the statement is too quiet ({speech.level_db:.0f} dB): record it closer to the microphone"
    if speech.snr_db is not None and speech.snr_db < LEAST_SNR_DB:
        yield f"the statement is too noisy (SNR {speech.snr_db:.0f} dB): record it in a quiet room"


def _word_reasons(spoken: Spoken, transcript: str) -> Iterator[str]:
    if not transcript:
        yield "no words were recognized in the statement"
        return
    if spoken.cer > MOST_CER:
        yield f"the words are not the sentence: {spoken.cer:.0%} of the characters differ, at most {MOST_CER:.0%} may"
    if len(spoken.missing) > MOST_MISSING:
        yield f"random words were not heard in their order: {', '.join(spoken.missing)}"


def _voice_reasons(compared: Sequence[_Compared], speech: Speech, encoder: EncoderName) -> Iterator[str]:
    if speech.seconds < _SOME_S:
        return
    for number, one in enumerate(compared, 1):
        name = "the reference" if len(compared) == 1 else f"reference {number}"
        if one.cosine is None:
            least = limit(encoder).least_s
            yield f"{name} has {one.seconds:.1f} s of speech: at least {least:g} s are needed to compare voices"
        elif one.cosine < one.least:
            yield f"the voice is not that of {name}: cosine {one.cosine:.2f} by {encoder}, at least {one.least:.2f} is needed"
        elif one.stretch is not None and one.stretch < limit(encoder).stretch_cosine:
            least = limit(encoder).stretch_cosine
            yield (
                f"{name} has another voice in a part of it: cosine {one.stretch:.2f} by {encoder} in about 3 s, at least "
                f"{least:.2f} is needed: give a recording of one person"
            )


def _tool() -> str:
    try:
        return f"voxmill {importlib.metadata.version('voxmill')}"
    except importlib.metadata.PackageNotFoundError:
        return "voxmill"
