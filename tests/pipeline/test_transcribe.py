"""Words of real clips, their times, and what is done with a language or a transcript that came with them."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sessions import make_stage, run_stages, session_of, session_of_samples

from pipeline.records import Segment, Session, TimedText
from pipeline.speech.language import speech_windows
from pipeline.speech.whisper import _DOUBT, _SURE, Recognizer
from pipeline.stages.transcribe import Transcribe, TranscribeConfig
from pipeline.text import count_characters, error_rate

pytestmark = pytest.mark.usefixtures("encoded_once")
JFK = "And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your country."


KIDS = "Kids are talking by the door."


@pytest.fixture(scope="module")
def whisper() -> Transcribe:
    stage = make_stage("transcribe", threads=1, beam_size=1, language_windows=1)
    assert isinstance(stage, Transcribe)
    return stage


def like(loaded: Transcribe, **settings: Any) -> Transcribe:
    """A stage with other settings and the same model, which is not loaded again."""
    stage = Transcribe(TranscribeConfig(threads=1, beam_size=1, **settings))
    stage.first, stage.second, stage.known_languages = loaded.first, loaded.second, {}
    return stage


@pytest.fixture(scope="module")
def kids(corpora: Path) -> Path:
    """An English clip of 3.6 s: one segment."""
    return corpora / "ravdess" / "actor_02" / "03-01-01-01-01-01-02.flac"


def heard(whisper: Transcribe, path: Path, language: str | None = None, text: str | None = None) -> Session:
    session = session_of(path, language=language)
    recording = session.recordings[0]
    recording.source = dataclasses.replace(recording.source, text=text)
    return whisper(run_stages(session, "decode", "detect_speech", "segment"))


@pytest.fixture(scope="module")
def jfk(whisper: Transcribe, corpora: Path) -> Session:
    return heard(whisper, corpora / "read" / "jfk.flac")


def test_english_is_found_and_its_words_are_right(jfk: Session) -> None:
    segments = list(jfk.alive())
    assert error_rate(" ".join(str(s.text) for s in segments), JFK) < 0.05
    for segment in segments:
        assert segment.language == "en" and segment.language_p is not None and segment.language_p > 0.8
        assert segment.text_source == "asr" and segment.other_text is None and segment.given_cer is None
        assert segment.asr_logprob is not None and -1 < segment.asr_logprob < 0
    chars = [float(segment.chars_per_s or 0) for segment in segments]
    rates = [float(segment.rate_sps or 0) for segment in segments]
    assert 8 < max(chars) < 22 and 3 < max(rates) < 7
    assert min(chars) > 3 and min(rates) > 1


def test_words_follow_each_other_within_their_segment(jfk: Session) -> None:
    for segment in jfk.alive():
        assert segment.words
        times = [time for word in segment.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert times[0] >= 0 and times[-1] <= segment.duration_s
        assert "".join(word.word for word in segment.words).replace(" ", "") == str(segment.text).replace(" ", "")
        assert all(0 <= word.p <= 1 for word in segment.words)


def test_chinese_is_found(whisper: Transcribe, corpora: Path) -> None:
    segment = next(heard(whisper, corpora / "multi" / "cosyvoice_zh.flac").alive())
    assert segment.language == "zh"
    assert count_characters(str(segment.text)) > 5


def test_a_given_language_is_honoured_even_when_it_is_another(whisper: Transcribe, kids: Path) -> None:
    segment = next(heard(whisper, kids, language="ru").alive())
    assert segment.language == "ru"
    assert any("\u0400" <= letter <= "\u04ff" for letter in str(segment.text))


def test_a_language_the_model_does_not_know_is_said_and_detected(whisper: Transcribe, kids: Path) -> None:
    session = heard(whisper, kids, language="tlh")
    assert not session.quarantine
    assert next(session.alive()).language == "en"
    assert any("tlh" in notice for notice in session.notices)


def texts(session: Session) -> str:
    return " ".join(str(segment.text) for segment in session.alive())


def test_a_given_transcript_takes_the_place_of_the_recognised_one(whisper: Transcribe, corpora: Path) -> None:
    given = JFK.replace("Americans", "Américans")
    session = heard(whisper, corpora / "read" / "jfk.flac", "en", given)
    assert texts(session) == given
    for segment in session.alive():
        assert segment.text_source == "given" and segment.agreement_cer is None and not segment.flags
        assert segment.given_cer is not None and segment.given_cer < 0.2
        assert segment.other_text and error_rate(segment.other_text, str(segment.text)) == pytest.approx(
            segment.given_cer
        )
        assert " ".join(word.word for word in segment.words) == segment.text


def test_times_given_with_a_transcript_decide_which_words_a_segment_gets(whisper: Transcribe, corpora: Path) -> None:
    session = session_of(corpora / "read" / "jfk.flac", language="en")
    spans = (TimedText(0.0, 2.6, "And so, my fellow Americans,"), TimedText(3.0, 11.0, JFK.split(", ", 2)[2]))
    recording = session.recordings[0]
    recording.source = dataclasses.replace(recording.source, text=" ".join(s.text for s in spans), spans=spans)
    session = whisper(run_stages(session, "decode", "detect_speech", "segment"))
    assert texts(session) == JFK and {s.text_source for s in session.alive()} == {"given"}


def test_a_wrong_transcript_is_not_believed_and_not_lost(whisper: Transcribe, jfk: Session, corpora: Path) -> None:
    given = "The quick brown fox jumps over the lazy dog, and nothing else happens in this story at all today."
    session = heard(whisper, corpora / "read" / "jfk.flac", "en", given)
    for segment, before in zip(session.alive(), jfk.alive(), strict=True):
        assert (segment.text_source, segment.text) == ("asr", before.text)
        assert segment.flags == ["given_rejected"] and segment.given_cer is not None and segment.given_cer > 0.5
        assert segment.given_gain is not None and segment.given_gain < 1.5
    assert " ".join(str(segment.other_text) for segment in session.alive()) == given


def test_words_that_are_not_said_are_trimmed_and_words_that_miss_are_put_in(whisper: Transcribe, corpora: Path) -> None:
    path = corpora / "read" / "jfk.flac"
    longer = heard(whisper, path, "en", f"{JFK} The committee will meet again on Thursday afternoon.")
    assert error_rate(texts(longer), JFK) < 0.02 and "given_trimmed" in [f for s in longer.alive() for f in s.flags]
    shorter = heard(whisper, path, "en", JFK.removesuffix(" for your country."))
    assert error_rate(texts(shorter), JFK) < 0.02 and "given_completed" in [f for s in shorter.alive() for f in s.flags]
    assert "repaired" in {segment.text_source for segment in shorter.alive()}


def test_a_second_pass_agrees_on_clear_speech_and_not_on_noise(whisper: Transcribe, kids: Path) -> None:
    stage = like(whisper, second_pass_on="all")
    clear = list(heard(stage, kids, "en").alive())
    assert clear and all(s.agreement_cer is not None and s.agreement_cer < 0.1 for s in clear)
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * 16_000).astype(np.float32)
    session = session_of_samples(noise)
    # A given language: noise is recognized as many words of a language found in it, which takes three times as long.
    recording = session.recordings[0]
    recording.source = dataclasses.replace(recording.source, language="en")
    session.segments = [Segment(recording.source.source_id, 0, 0.0, 3.0)]
    (segment,) = stage(session).segments
    doubt = segment.flags or (segment.agreement_cer or 0) > 0.2 or (segment.asr_logprob or 0) < -0.7
    assert doubt or not segment.text
    off = like(whisper, second_pass="off", second_pass_on="all")
    assert all(s.agreement_cer is None for s in heard(off, kids, "en").alive())


def test_a_segment_in_another_language_than_its_recording_says_so(
    whisper: Transcribe, corpora: Path, kids: Path
) -> None:
    """Two English clips and a Chinese one in one recording."""
    rate = 16_000
    clips = [
        session.pcm(session.recordings[0].source.source_id, 0, 10).astype(np.float32) / 32768
        for path in (corpora / "read" / "jfk.flac", corpora / "multi" / "cosyvoice_zh.flac", kids)
        for session in [run_stages(session_of(path), "decode")]
    ]
    session = session_of_samples(np.concatenate(clips))
    source = session.recordings[0].source.source_id
    edges = [0.0, *(float(sum(len(c) for c in clips[: i + 1]) / rate) for i in range(len(clips)))]
    session.segments = [Segment(source, i, a, b) for i, (a, b) in enumerate(itertools.pairwise(edges))]
    first, second, third = like(whisper)(session).segments
    assert (first.language, second.language, third.language) == ("en", "zh", "en")
    assert second.flags == ["language_switch"] and not first.flags
    assert any("\u4e00" <= letter <= "\u9fff" for letter in str(second.text))


def test_dialects_are_heard_as_chinese_and_stay_what_they_are(whisper: Transcribe, corpora: Path) -> None:
    session = heard(whisper, corpora / "multi" / "cosyvoice_zh.flac", language="wuu")
    segment = next(session.alive())
    assert (segment.language, segment.language_p) == ("wuu", 1.0) and not session.notices and not segment.flags


def test_a_language_outside_the_thirty_is_recorded_and_flagged(whisper: Transcribe, kids: Path) -> None:
    segment = next(heard(whisper, kids, language="ca").alive())
    assert segment.language == "ca" and "foreign_language" in segment.flags


def test_a_short_clip_keeps_the_transcript_that_came_with_it(whisper: Transcribe, kids: Path) -> None:
    segments = list(heard(whisper, kids, language="en-US", text=KIDS).alive())
    assert [(s.text, s.text_source, s.language, s.language_p) for s in segments] == [(KIDS, "given", "en-US", 1.0)]
    assert heard(whisper, kids, "en-US", KIDS).segments == segments


def test_windows_for_the_language_are_at_most_thirty_seconds(corpora: Path) -> None:
    session = run_stages(session_of(corpora / "long" / "silero_test.flac"), "decode", "detect_speech", "segment")
    source = session.recordings[0].source.source_id
    windows = speech_windows(session, source, 4)
    assert 1 <= len(windows) <= 4
    assert all(0 < len(window) <= 30 * 16_000 for window in windows)
    assert speech_windows(session, "another", 4) == []


@pytest.fixture
def near(whisper: Transcribe) -> Recognizer:
    """A recognizer that computes 6 s of the empty rest of its window."""
    assert whisper.first._margin_s == 6.0
    return whisper.first


def test_the_empty_rest_of_the_window_is_not_computed_and_the_words_are_the_same(
    near: Recognizer, kids: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a margin the encoder gets as much as the clip has; a result in doubt is made again with the whole window."""
    decoded = run_stages(session_of(kids), "decode")
    clip = decoded.pcm(decoded.recordings[0].source.source_id, 0.0, 11.0).astype(np.float32) / 32768
    whole = copy.copy(near)
    whole._margin_s = None
    heard = near.transcribe(clip, "en", beam_size=1)
    assert error_rate(heard.text, KIDS) < 0.05 and error_rate(whole.transcribe(clip, "en", 1).text, KIDS) < 0.05
    features = np.zeros((80, 3000), np.float32)
    features[:, :1100] = 1.0
    near._whisper.margin_frames = 600
    assert near._whisper.encode(features).shape[1] == 850, "17 s of 20 ms steps, not 30"
    near._whisper.margin_frames = None
    assert near._whisper.encode(features).shape[1] == 1500

    calls: list[int | None] = []
    real = Recognizer._transcribe

    def doubtful(self: Recognizer, *rest: Any) -> Any:
        calls.append(self._whisper.margin_frames)
        return dataclasses.replace(real(self, *rest), logprob=_DOUBT - 0.1)

    monkeypatch.setattr(Recognizer, "_transcribe", doubtful)
    near.transcribe(clip, "en", beam_size=1)
    whole.transcribe(clip, "en", beam_size=1)
    assert calls == [600, None, None]


def test_a_language_that_a_shortened_window_leaves_open_is_detected_in_the_whole_one(
    near: Recognizer, kids: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = run_stages(session_of(kids), "decode")
    clip = decoded.pcm(decoded.recordings[0].source.source_id, 0.0, 11.0).astype(np.float32) / 32768
    windows: list[int | None] = []
    real = type(near._whisper).encode

    def encode(self: Any, features: np.ndarray) -> Any:
        windows.append(self.margin_frames)
        return real(self, features)

    monkeypatch.setattr(type(near._whisper), "encode", encode)
    found = near.languages(clip)
    assert max(found, key=lambda code: found[code]) == "en" and found["en"] > _SURE and windows == [600]
    whole = copy.copy(near)
    whole._margin_s = None
    monkeypatch.setattr("pipeline.speech.whisper._SURE", found["en"] + 1e-6)
    assert near.languages(clip) == whole.languages(clip) != found and windows == [600, 600, None, None]
    assert near._whisper.margin_frames is None


def test_a_loop_in_a_shortened_window_is_left_at_once(near: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """faster-whisper computes a piece when it is asked for: none after the loop, then all of the whole window."""
    computed: list[str] = []

    def pieces(shortened: bool) -> Iterator[SimpleNamespace]:
        for text, ratio in (
            (("well", 1.0), ("no no no", 2.0), ("never", 1.0)) if shortened else (("whole", 2.4), ("x", 1))
        ):
            computed.append(text)
            numbers = {"avg_logprob": -0.1, "no_speech_prob": 0.0, "end": 1.0}
            word = SimpleNamespace(word=text, start=0.0, end=1.0, probability=1.0)
            yield SimpleNamespace(text=text, tokens=[1], words=[word], compression_ratio=ratio, **numbers)

    monkeypatch.setattr(
        near._whisper, "transcribe", lambda *a, **k: (pieces(near._whisper.margin_frames is not None), None)
    )
    heard = near.transcribe(np.zeros(16_000, np.float32), "en", beam_size=1)
    assert computed == ["well", "no no no", "whole", "x"]
    assert (heard.text, heard.compression_ratio) == ("wholex", 2.4)
