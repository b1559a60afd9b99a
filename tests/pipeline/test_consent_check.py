"""A statement that is checked: real recordings with known words, of the same and of other speakers."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from fakes.consent_clips import SENTENCE, WORDS, challenge_of, existing, reference_of, statement_of
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("faster_whisper", reason="the extra pipeline is not installed")
pytest.importorskip("av", reason="the extra pipeline is not installed")

from catalogs.weights.registry import resolve
from catalogs.weights.verify import WeightsMissing
from pipeline.records import PCM_RATE
from pipeline.speech.whisper import Recognizer, Transcription
from pipeline.voice.consent.check import LEAST_STATEMENT_S, RECOGNIZER, ConsentChecker
from pipeline.voice.consent.clips import Clip
from pipeline.voice.consent.record import Record
from pipeline.voice.consent.voices import STRONG, least_of_stretches, limit
from voxmill.consent_check import read_clip

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
CHALLENGE = challenge_of(now=NOON)


class Remembering(Recognizer):
    """Recognizes each clip once: what is decided about its words differs from test to test, the words do not."""

    def __init__(self) -> None:
        super().__init__(RECOGNIZER, device="cpu")
        self.heard: dict[bytes, Transcription] = {}

    def transcribe(
        self, audio: np.ndarray, language: str | None, beam_size: int, temperature: float = 0.0
    ) -> Transcription:
        key = hashlib.sha256(audio.tobytes()).digest()
        if key not in self.heard:
            self.heard[key] = super().transcribe(audio, language, beam_size, temperature)
        return self.heard[key]


@pytest.fixture(scope="module")
def checker() -> ConsentChecker:
    for name in ("silero-vad", "whisper-base", "ge2e"):
        try:
            resolve(name)
        except WeightsMissing as error:
            pytest.skip(str(error))
    return ConsentChecker("ge2e", Remembering())


@pytest.fixture(scope="module")
def statement(corpora: Path) -> Clip:
    return read_clip(statement_of(corpora))


@pytest.fixture(scope="module")
def reference(corpora: Path) -> Clip:
    return read_clip(reference_of(corpora))


def of(samples: np.ndarray, *marks: str) -> Clip:
    samples = np.asarray(samples, np.float32)
    return Clip(hashlib.sha256(samples.tobytes()).hexdigest(), samples, marks)


def test_the_right_sentence_in_the_right_voice(checker: ConsentChecker, statement: Clip, reference: Clip) -> None:
    record = checker.check(CHALLENGE, statement, [reference], NOON)
    assert record.verdict == "plausible" and record.accepted and not record.reasons and not record.missing_words
    assert record.cer is not None and record.cer < 0.1 and record.sentence == SENTENCE and record.words == WORDS
    assert record.cosine[0] is not None and record.cosine[0] > record.least_cosine[0] > 0.5
    assert 8 < record.statement_s < 9.8 and record.snr_db is not None and record.snr_db > 15
    assert record.statement_sha256 == statement.sha256 and record.reference_sha256 == (reference.sha256,)
    assert record.encoder == "ge2e" and record.challenge == CHALLENGE.id and record.at == "2026-11-30T12:00:00+00:00"
    # It holds words and numbers, and nothing from which a voice could be recognized.
    assert not [value for value in asdict(record).values() if isinstance(value, np.ndarray | bytes)]
    assert all(len(value) <= 4 for value in asdict(record).values() if isinstance(value, tuple))
    again = checker.check(replace(CHALLENGE, statement_sha256=statement.sha256), statement, [reference], NOON)
    assert again == record


def test_the_voice_of_somebody_else(checker: ConsentChecker, statement: Clip, corpora: Path) -> None:
    others = [
        read_clip(existing(corpora / "world/sessions/azure-samples__enrollment_audio_katie.flac")),
        read_clip(existing(corpora / "read/jfk.flac")),
    ]
    record = checker.check(CHALLENGE, statement, others, NOON)
    assert record.verdict == "refused" and record.cer is not None and record.cer < 0.1
    assert [reason.split(":")[0] for reason in record.reasons] == [
        "the voice is not that of reference 1", "the voice is not that of reference 2",
    ]  # fmt: skip


def test_a_reference_that_is_spliced_of_two_voices(
    checker: ConsentChecker, statement: Clip, reference: Clip, corpora: Path
) -> None:
    victim = read_clip(existing(corpora / "read/jfk.flac")).samples
    for parts in (
        (victim, reference.samples),
        (reference.samples[: 4 * PCM_RATE], victim[: 6 * PCM_RATE], reference.samples),
    ):
        record = checker.check(CHALLENGE, statement, [of(np.concatenate(parts))], NOON)
        # The mean of both voices is near to both.
        assert record.cosine[0] is not None and record.cosine[0] > record.least_cosine[0]
        (reason,) = record.reasons
        assert reason.startswith("the reference has another voice in a part of it: cosine 0.")
        assert record.stretch_cosine[0] is not None and record.stretch_cosine[0] < 0.6
    whole = checker.check(CHALLENGE, statement, [reference], NOON)
    assert whole.stretch_cosine[0] is not None and limit("ge2e").stretch_cosine < 0.8 < whole.stretch_cosine[0]


def test_one_wrong_reference_of_two_is_named(
    checker: ConsentChecker, statement: Clip, reference: Clip, corpora: Path
) -> None:
    record = checker.check(CHALLENGE, statement, [reference, read_clip(existing(corpora / "read/jfk.flac"))], NOON)
    (reason,) = record.reasons
    assert reason.startswith("the voice is not that of reference 2: cosine ")


def test_wrong_words(checker: ConsentChecker, statement: Clip, reference: Clip) -> None:
    record = checker.check(
        challenge_of("I allow the use of my voice. My four words are: apple, river, candle, doctor.",
                     ("apple", "river", "candle", "doctor"), NOON), statement, [reference], NOON,
    )  # fmt: skip
    assert record.verdict == "refused" and len(record.missing_words) == 4
    assert [reason.split(":")[0] for reason in record.reasons] == [
        "the words are not the sentence", "random words were not heard in their order",
    ]  # fmt: skip


def test_the_right_sentence_without_its_random_words(checker: ConsentChecker, statement: Clip, reference: Clip) -> None:
    # Two of four are others, and the whole is near enough.
    words = ("Chinese", "apple", "river", "Netherlands")
    record = checker.check(challenge_of(words=words, now=NOON), statement, [reference], NOON)
    assert record.reasons == ("random words were not heard in their order: apple, river",)
    one_other = challenge_of(words=("Chinese", "apple", "centuries", "Netherlands"), now=NOON)
    one = checker.check(one_other, statement, [reference], NOON)
    assert one.verdict == "plausible" and one.missing_words == ("apple",)


def test_a_stale_sentence_and_one_that_was_used(checker: ConsentChecker, statement: Clip, reference: Clip) -> None:
    late = checker.check(CHALLENGE, statement, [reference], NOON + timedelta(hours=25))
    assert late.verdict == "refused" and late.reasons[0].startswith("the sentence was valid until 2026-12-01T12:00:00")
    replayed = checker.check(replace(CHALLENGE, statement_sha256="0" * 64), statement, [reference], NOON)
    assert replayed.reasons == ("the sentence was used up by another recording: ask for a new one",)
    # The recording that has used it up may be checked against another clip of the speaker, also later.
    used = replace(CHALLENGE, statement_sha256=statement.sha256)
    assert checker.check(used, statement, [reference], NOON + timedelta(days=99)).accepted


def test_marked_audio(checker: ConsentChecker, statement: Clip, reference: Clip) -> None:
    mark = "the file states that voxmill 0.1.0 made it"
    spoken = checker.check(CHALLENGE, replace(statement, marks=(mark,)), [reference], NOON)
    assert spoken.verdict == "refused" and spoken.reasons == (f"the statement is synthetic: {mark}",)
    cloned = checker.check(CHALLENGE, statement, [replace(reference, marks=(mark,))], NOON)
    assert cloned.reasons == (f"the reference is synthetic: {mark}",)
    same = checker.check(CHALLENGE, statement, [statement], NOON)
    assert same.reasons == ("the reference is the statement itself: give another recording of the speaker",)


def refused(record: Record, words: str) -> bool:
    return record.verdict == "refused" and any(reason.startswith(words) for reason in record.reasons)


def test_recordings_that_are_too_short_too_quiet_or_noisy(
    checker: ConsentChecker, statement: Clip, reference: Clip
) -> None:
    def checked(samples: np.ndarray) -> Record:
        return checker.check(CHALLENGE, of(samples), [reference], NOON)

    short = checked(statement.samples[: 3 * PCM_RATE])
    assert refused(short, "the statement has 3.0 s of speech") and short.statement_s < LEAST_STATEMENT_S
    for silence in (np.zeros(5 * PCM_RATE), np.zeros(0)):
        empty = checked(silence)
        assert refused(empty, "the statement has 0.0 s of speech") and empty.transcript == "" and empty.cer is None
        assert empty.cosine == (None,) and "no words were recognized in the statement" in empty.reasons
    assert refused(checked(statement.samples * 0.005), "the statement is too quiet")
    level = float(np.sqrt(np.mean(np.square(statement.samples))))
    noise = np.random.default_rng(1).normal(0, level, len(statement.samples))
    assert refused(checked(statement.samples + noise), "the statement is too noisy (SNR ")
    little = checker.check(CHALLENGE, statement, [of(reference.samples[:PCM_RATE])], NOON)
    assert refused(little, "the reference has ") and little.cosine == (None,)
    with pytest.raises(ValueError, match="no reference is given"):
        checker.check(CHALLENGE, statement, [], NOON)


@given(st.integers(0, 12), st.integers(1, 5), st.integers(0, 12), st.integers(1, 5))
def test_no_place_hides_a_stretch_of_another_voice(before: int, other: int, after: int, stretch: int) -> None:
    # Windows of two orthogonal voices: the least cosine is that of the stretch with most of the other one.
    mine, another = np.eye(2, dtype=np.float32)
    windows = np.stack([mine] * before + [another] * other + [mine] * after)
    run = min(stretch, len(windows))
    share = min(other, run)
    expected = (run - share) / np.hypot(run - share, share)
    assert least_of_stretches(mine, windows, stretch) == pytest.approx(expected, abs=1e-6)


def test_limits_rise_with_the_speech_that_is_compared() -> None:
    bound = limit("ge2e")
    cuts = [bound.least_cosine(seconds, 10.0) for seconds in (4.0, 6.0, 10.0, 15.0, 60.0)]
    assert cuts == sorted(cuts) and cuts[0] < cuts[3] == cuts[4] < 1
    assert bound.least_cosine(5, 8) == bound.least_cosine(8, 5)
    # Only a strong encoder may say more than plausible.
    assert STRONG == ("ecapa",) and 0 < limit("ecapa").least_cosine(5, 5) < 1
