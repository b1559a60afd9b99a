"""Words of real clips, their times, and what is done with a language or a transcript that came with them."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sessions import make_stage, run_stages, session_of

from pipeline.records import Segment, Session
from pipeline.stage import Stage
from pipeline.stages.transcribe import Transcribe, speech_windows
from pipeline.text import count_characters, count_syllables, error_rate, share_out

JFK = "And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your country."


@pytest.fixture(scope="module")
def whisper() -> Stage[Any]:
    return make_stage("transcribe", threads=1, beam_size=1)


def heard(whisper: Stage[Any], path: Path, language: str | None = None, text: str | None = None) -> Session:
    session = session_of(path, language=language)
    recording = session.recordings[0]
    recording.source = dataclasses.replace(recording.source, text=text)
    return whisper(run_stages(session, "decode", "detect_speech", "segment"))


@pytest.fixture(scope="module")
def jfk(whisper: Stage[Any], corpora: Path) -> Session:
    return heard(whisper, corpora / "read" / "jfk.flac")


def test_english_is_found_and_its_words_are_right(jfk: Session) -> None:
    segments = list(jfk.alive())
    assert error_rate(" ".join(str(s.text) for s in segments), JFK) < 0.05
    for segment in segments:
        assert segment.language == "en" and segment.language_p is not None and segment.language_p > 0.8
        assert segment.text_source == "asr" and segment.agreement_cer is None
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


def test_chinese_is_found(whisper: Stage[Any], corpora: Path) -> None:
    segment = next(heard(whisper, corpora / "multi" / "cosyvoice_zh.flac").alive())
    assert segment.language == "zh"
    assert count_characters(str(segment.text)) > 5


def test_a_given_language_is_honoured_even_when_it_is_another(whisper: Stage[Any], corpora: Path) -> None:
    segment = next(heard(whisper, corpora / "read" / "LJ002-0020.flac", language="ru").alive())
    assert segment.language == "ru"
    assert any("\u0400" <= letter <= "\u04ff" for letter in str(segment.text))


def test_a_language_the_model_does_not_know_is_said_and_detected(whisper: Stage[Any], corpora: Path) -> None:
    session = heard(whisper, corpora / "read" / "LJ002-0020.flac", language="tlh")
    assert not session.quarantine
    assert next(session.alive()).language == "en"
    assert any("tlh" in notice for notice in session.notices)


def with_given(whisper: Stage[Any], session: Session, text: str) -> list[Segment]:
    """The session's segments after a transcript was shared out over them."""
    assert isinstance(whisper, Transcribe)
    session = copy.deepcopy(session)
    recording = session.recordings[0]
    recording.source = dataclasses.replace(recording.source, text=text)
    whisper._use_given(session, recording)
    return list(session.alive())


def test_a_given_transcript_takes_the_place_of_the_recognised_one(whisper: Stage[Any], jfk: Session) -> None:
    given = JFK.replace("Americans", "Américans")
    segments = with_given(whisper, jfk, given)
    assert " ".join(str(s.text) for s in segments) == given
    assert {s.text_source for s in segments} == {"given"}
    assert all(s.agreement_cer is not None and s.agreement_cer < 0.2 for s in segments)


def test_a_wrong_transcript_is_not_believed(whisper: Stage[Any], jfk: Session) -> None:
    given = "The quick brown fox jumps over the lazy dog, and nothing else happens in this story at all today."
    for segment, before in zip(with_given(whisper, jfk, given), jfk.alive(), strict=True):
        assert (segment.text_source, segment.text) == ("asr", before.text)
        assert segment.agreement_cer is not None and segment.agreement_cer > 0.5


def test_a_short_clip_keeps_the_transcript_that_came_with_it(whisper: Stage[Any], corpora: Path) -> None:
    path = corpora / "ravdess" / "actor_02" / "03-01-01-01-01-01-02.flac"
    given = "Kids are talking by the door."
    segments = list(heard(whisper, path, language="en-US", text=given).alive())
    assert [(s.text, s.text_source, s.language, s.language_p) for s in segments] == [(given, "given", "en-US", 1.0)]
    assert heard(whisper, path, "en-US", given).segments == segments


def test_windows_for_the_language_are_at_most_thirty_seconds(corpora: Path) -> None:
    session = run_stages(session_of(corpora / "long" / "silero_test.flac"), "decode", "detect_speech", "segment")
    source = session.recordings[0].source.source_id
    windows = speech_windows(session, source, 4)
    assert 1 <= len(windows) <= 4
    assert all(0 < len(window) <= 30 * 16_000 for window in windows)
    assert speech_windows(session, "another", 4) == []


words = st.lists(st.sampled_from(["one", "two", "three", "four", "five", "six"]), min_size=0, max_size=12)


@given(st.lists(words, min_size=1, max_size=6))
def test_a_perfect_transcript_is_shared_out_as_recognised(parts: list[list[str]]) -> None:
    recognised = [" ".join(part) for part in parts]
    assert share_out(" ".join(text for text in recognised if text).upper(), recognised) == [
        text.upper() for text in recognised
    ]


@given(st.lists(words, min_size=1, max_size=6), words, st.sampled_from(["word", "char"]))
def test_nothing_of_a_transcript_is_lost_or_doubled(parts: list[list[str]], given_words: list[str], unit: str) -> None:
    shares = share_out(" ".join(given_words), [" ".join(part) for part in parts], unit)
    assert len(shares) == len(parts)
    assert "".join(shares).replace(" ", "") == "".join(given_words)


def test_share_out_bears_errors_near_the_border() -> None:
    given = "Good evening, everyone. My name is Allison; please hold the line."
    shares = share_out(given, ["good evening every one", "my name's Alison", "please hold a line"])
    assert shares == ["Good evening, everyone.", "My name is Allison;", "please hold the line."]
    assert share_out("你好世界", ["你好", "世界"], "char") == ["你好", "世界"]


@pytest.mark.parametrize(
    ("text", "syllables", "characters"),
    [
        ("Kids are talking by the door.", 7, 23),
        ("南洋大厦停车场", 7, 7),
        ("こんにちは きょう", 7, 8),
        ("안녕하세요", 5, 5),
        ("Я иду домой", 5, 9),
        ("", 0, 0),
        ("... !", 0, 0),
    ],
)
def test_counts(text: str, syllables: int, characters: int) -> None:
    assert count_characters(text) == characters
    assert count_syllables(text) == pytest.approx(syllables, abs=1)


def test_error_rate() -> None:
    assert error_rate("Good Evening!", "good evening") == 0.0
    assert error_rate("god evening", "good evening") == pytest.approx(1 / 11)
    assert error_rate("", "abc") == 1.0 and error_rate("", "...") == 0.0 and error_rate("x", "") == 1.0
