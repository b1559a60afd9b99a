"""Longer clips from neighbors: shares of the time, nothing lost, never over voices, languages, faults or long pauses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.records import PCM_RATE, PcmWindow, Recording, Segment, Session, Source, Word
from pipeline.speech.join import joined
from pipeline.speech.lengths import draw_runs
from pipeline.stages.refine_cuts import RefineCuts, RefineCutsConfig

ALL = {0.0: 1.0, 60.0: 1.0, 180.0: 1.0, 300.0: 1.0}


def segment(start: float, end: float, **facts: object) -> Segment:
    words = [Word("some", 0.2, 0.6, 0.9), Word("words", 0.7, end - start - 0.2, 0.8)]
    base = {"text": "Some words.", "language": "en", "language_p": 0.9, "text_source": "asr", "asr_logprob": -0.2}
    base |= {"speaker": "s:spk-1"}
    made = Segment("a", 0, start, end, words=words, speaker_purity=0.8, **(base | facts))  # type: ignore[arg-type]
    made.embedding = np.eye(4, dtype=np.float32)[0]
    return made


def session_of(segments: list[Segment], seconds: float) -> Session:
    recording = Recording(Source("a", "a", "a", "s", 1, ""), seconds, PCM_RATE, 1)
    recording.silence_s = seconds - sum(s.duration_s for s in segments)
    pcm = np.random.default_rng(0).integers(-300, 300, round(seconds * PCM_RATE)).astype(np.int16)
    return Session("s", "0123456789abcdef", "", [recording], [PcmWindow("a", 0.0, pcm)], segments=segments)


def refined(segments: list[Segment], seconds: float, **config: object) -> Session:
    return RefineCuts(RefineCutsConfig(**config))(session_of(segments, seconds))


def row(count: int, length: float = 8.0, pause: float = 0.5, **facts: object) -> list[Segment]:
    return [segment(i * (length + pause), i * (length + pause) + length, **facts) for i in range(count)]


durations = st.lists(st.floats(0.5, 30), min_size=1, max_size=60)
mixes = st.dictionaries(st.sampled_from([0.0, 20.0, 60.0, 180.0, 300.0]), st.floats(0.1, 1), min_size=1)


@settings(max_examples=150, deadline=None)
@given(durations, mixes, st.floats(0, 1.2), st.text(max_size=5))
def test_groups_hold_everything_once_and_keep_to_their_class(
    lengths: list[float], mix: dict[float, float], pause: float, seed: str
) -> None:
    pauses = [pause] * (len(lengths) - 1)
    sizes = draw_runs(lengths, pauses, mix, seed)
    assert sum(sizes) == len(lengths) and min(sizes) >= 1
    assert sizes == draw_runs(lengths, pauses, mix, seed)
    place = 0
    for size in sizes:
        total = sum(lengths[place : place + size]) + pause * (size - 1)
        assert size == 1 or total <= max(mix) + 1e-6
        place += size


def test_shares_of_the_time_are_those_of_the_mix() -> None:
    dice = np.random.default_rng(0)
    lengths = dice.uniform(3, 15, 20_000).tolist()
    sizes = draw_runs(lengths, [0.5] * (len(lengths) - 1), {0.0: 0.5, 60.0: 0.2, 180.0: 0.2, 300.0: 0.1}, "seed")
    shares = dict.fromkeys((0, 60, 180, 300), 0.0)
    place = 0
    for size in sizes:
        total = sum(lengths[place : place + size])
        shares[0 if size == 1 else 60 if total <= 60 else 180 if total <= 180 else 300] += total / sum(lengths)
        place += size
    assert shares == pytest.approx({0: 0.5, 60: 0.2, 180: 0.2, 300: 0.1}, abs=0.05)


def test_every_second_and_every_word_stays() -> None:
    segments = row(120)
    texts, words = [s.text for s in segments], sum(len(s.words) for s in segments)
    done = refined(segments, 120 * 8.5, lengths=ALL)
    clips = list(done.segments)
    assert not done.quarantine and len(clips) < 60 and max(c.duration_s for c in clips) > 60
    assert done.recordings[0].silence_s + sum(c.duration_s for c in clips) == pytest.approx(120 * 8.5)
    assert " ".join(str(c.text) for c in clips) == " ".join(map(str, texts))
    assert sum(len(c.words) for c in clips) == words
    assert [c.seq for c in clips] == list(range(len(clips))) and len({c.segment_id for c in clips}) == len(clips)
    for clip in clips:
        times = [t for word in clip.words for t in (word.start, word.end)]
        assert times == sorted(times) and times[0] >= 0 and times[-1] <= clip.duration_s
        for start in (clip.start_s + word.start for word in clip.words if word.word == "some"):
            number = (start - 0.2) / 8.5
            assert number == pytest.approx(round(number), abs=1e-6), "words keep their time in the recording"
    again = refined(row(120), 120 * 8.5, lengths=ALL)
    assert [s.segment_id for s in again.segments] == [c.segment_id for c in clips]


@pytest.mark.parametrize(
    "facts",
    [
        {"speaker": "s:spk-2"},
        {"speaker": None},
        {"language": "de"},
        {"text_source": "given"},
        {"text": " "},
        {"flags": ["looping_text"]},
        {"hard_reasons": ["too_short"]},
        {"asr_logprob": -1.2},
        {"separated": True},
    ],
)
def test_what_differs_stays_apart(facts: dict[str, object]) -> None:
    segments = row(30)
    for name, value in facts.items():
        setattr(segments[15], name, value)
    done = refined(segments, 30 * 8.5, lengths={300.0: 1.0})
    (alone,) = [s for s in done.segments if s.start_s <= 15 * 8.5 < s.end_s]
    assert (alone.start_s, alone.end_s) == (15 * 8.5, 15 * 8.5 + 8)
    assert len(done.segments) < 25, "the others are joined"


def test_a_long_pause_and_a_cut_word_keep_clips_apart() -> None:
    segments = [*row(10), *[segment(s.start_s + 90, s.end_s + 90) for s in row(10)]]
    edges = {s.end_s for s in refined(segments, 180, lengths={300.0: 1.0}).segments}
    assert 10 * 8.5 - 0.5 in edges
    # A voice up to the very end: noise that is loud where the sixth segment ends and the seventh starts.
    session = session_of(row(10, pause=0.0), 80)
    session.windows[0].pcm[48 * PCM_RATE - 8000 : 48 * PCM_RATE + 8000] *= 60
    done = RefineCuts(RefineCutsConfig(lengths={300.0: 1.0}))(session)
    assert 48.0 in {s.end_s for s in done.segments} and max(s.duration_s for s in done.segments) > 30
    before = next(s for s in done.segments if s.end_s == 48.0)
    assert before.tail_edge is not None and before.tail_edge > 0.8


def test_what_is_known_of_the_parts_is_known_of_the_whole() -> None:
    first, second = segment(1.0, 5.0), segment(5.5, 9.0)
    first.flags, second.flags = ["given_trimmed"], ["given_trimmed", "given_completed"]
    first.compression_ratio, second.compression_ratio = 1.0, 1.4
    second.embedding, second.speaker_purity = np.array([0.6, 0.8, 0, 0], dtype=np.float32), 0.7
    whole = joined([first, second])
    assert (whole.start_s, whole.end_s, whole.text) == (1.0, 9.0, "Some words. Some words.")
    assert whole.words[2].start == pytest.approx(4.7) and whole.words[3].end == pytest.approx(7.8)
    assert whole.flags == ["given_trimmed", "given_completed"] and whole.compression_ratio == 1.4
    assert whole.embedding is not None and np.linalg.norm(whole.embedding) == pytest.approx(1)
    assert whole.speaker_purity == 0.7
    assert whole.chars_per_s == pytest.approx(len("Somewords.Somewords.") / 7.6, rel=0.15)
    with pytest.raises(ValueError, match="two segments or more"):
        joined([first])


def test_characters_join_without_spaces() -> None:
    parts = [segment(0.0, 4.0, language="zh", text="你好。"), segment(4.2, 8.0, language="zh", text="再见。")]
    assert joined(parts).text == "你好。再见。"


def test_nothing_is_joined_where_nothing_is_asked_for() -> None:
    segments = row(40)
    times = [(s.start_s, s.end_s) for s in segments]
    done = refined(segments, 40 * 8.5, lengths={0.0: 1.0})
    assert [(s.start_s, s.end_s) for s in done.segments] == times


@pytest.mark.parametrize("lengths", [{}, {0.0: 0.0}, {60.0: -1.0}, {400.0: 1.0}])
def test_senseless_mixes_are_refused(lengths: dict[float, float]) -> None:
    with pytest.raises(ValidationError, match="lengths"):
        RefineCutsConfig(lengths=lengths)


def test_recordings_of_a_session_stay_in_order() -> None:
    session = session_of(row(30), 30 * 8.5)
    other = session_of(row(20), 20 * 8.5)
    other.recordings[0].source = Source("b", "b", "b", "s", 1, "")
    other.windows[0].source_id = "b"
    for s in other.segments:
        s.source_id = "b"
    session.recordings += other.recordings
    session.windows += other.windows
    session.segments += other.segments
    done = RefineCuts(RefineCutsConfig(lengths=ALL))(session)
    assert [s.source_id for s in done.segments] == sorted(s.source_id for s in done.segments)
    for before, after in itertools.pairwise(done.segments):
        assert before.source_id != after.source_id or before.end_s <= after.start_s + 1e-9
