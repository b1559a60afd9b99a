"""Cutting: every sample is in one segment or in the silence, cuts lie in pauses, ids are stable."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.cuts.quiet import quietest
from pipeline.records import PCM_RATE, Recording, Session, Source, SpeechSpan, Window
from pipeline.stages.segment import CutSegments, SegmentConfig


def session(seconds: float, rate: int, speech: list[tuple[float, float]], name: str = "a") -> Session:
    recording = Recording(Source(name, name, name, "s", 1, ""), round(seconds * rate) / rate, rate, 1)
    pcm = np.random.default_rng(0).integers(-900, 900, round(seconds * PCM_RATE)).astype(np.int16)
    return Session(
        "s", "fp", "", [recording], [Window(name, 0.0, pcm)], [SpeechSpan(name, start, end) for start, end in speech]
    )


def cut(session: Session, **settings: float) -> Session:
    return CutSegments(SegmentConfig(**settings))(session)


@st.composite
def speech(draw: st.DrawFn) -> tuple[float, list[tuple[float, float]]]:
    """(seconds, spans of speech in order) as a VAD gives them."""
    edges, position = [], draw(st.floats(0, 8))
    for _ in range(draw(st.integers(0, 8))):
        length = draw(st.floats(0.05, 12))
        edges.append((position, position + length))
        position += length + draw(st.floats(0.01, 9))
    return max(position + draw(st.floats(-0.5, 7)), edges[-1][1] if edges else 0.0, 0.1), edges


@settings(max_examples=150, deadline=None)
@given(
    speech(),
    st.sampled_from([8_000, 11_127, 22_050, 44_100, 48_000, 96_000]),
    st.floats(0, 0.25),
    st.sampled_from([2.0, 5.0, 30.0]),
)
def test_every_sample_is_accounted_for_and_no_speech_is_lost(
    case: tuple[float, list[tuple[float, float]]], rate: int, pad_s: float, max_s: float
) -> None:
    seconds, spans = case
    done = cut(session(seconds, rate, spans), pad_s=pad_s, max_s=max_s, target_s=max_s / 2)
    assert not done.quarantine
    (recording,) = done.recordings
    total = sum(round(s.end_s * rate) - round(s.start_s * rate) for s in done.segments) + recording.silence_s * rate
    assert total == pytest.approx(recording.duration_s * rate, abs=1e-3)
    assert sum(s.duration_s for s in done.segments) + recording.silence_s == pytest.approx(
        recording.duration_s, abs=1e-6
    )
    for segment in done.segments:
        for edge in (segment.start_s, segment.end_s):
            assert edge * rate == pytest.approx(round(edge * rate), abs=1e-5)
        assert 0 <= segment.start_s < segment.end_s <= recording.duration_s + 1e-9
        assert segment.duration_s <= max_s + 4 / rate or "no_speech" in segment.hard_reasons
        assert ("too_short" in segment.hard_reasons) == (segment.duration_s < 0.5 - 0.5 / rate)
    for before, after in itertools.pairwise(done.segments):
        assert before.end_s <= after.start_s + 1e-9 and after.seq == before.seq + 1
    voiced = [s for s in done.segments if "no_speech" not in s.hard_reasons]
    for start, end in spans:
        inside = sum(max(0.0, min(s.end_s, end) - max(s.start_s, start)) for s in voiced)
        assert inside == pytest.approx(min(end, recording.duration_s) - start, abs=4 / rate)
    silent = [s for s in done.segments if "no_speech" in s.hard_reasons]
    assert all(s.duration_s >= 5 - 1 / rate or not spans for s in silent)
    # No pad reaches into a neighbour's speech: a cut between two spans lies in their pause.
    for segment in voiced:
        for start, end in spans:
            for edge in (segment.start_s, segment.end_s):
                if start + 2 / rate < edge < end - 2 / rate:
                    assert end - start > max_s / 2, "only speech that is too long is cut inside"


def test_a_recording_without_speech_is_one_rejected_row() -> None:
    done = cut(session(3.0, 16_000, []))
    (segment,) = done.segments
    assert (segment.start_s, segment.end_s, segment.hard_reasons) == (0.0, 3.0, ["no_speech"])
    assert done.recordings[0].silence_s == 0.0
    (short,) = cut(session(0.08, 44_100, [])).segments
    assert short.hard_reasons == ["no_speech", "too_short"]


def test_short_pauses_join_and_long_ones_part() -> None:
    spans = [(1.0, 3.0), (3.4, 5.0), (6.0, 8.0), (14.0, 15.0)]
    done = cut(session(16.0, 16_000, spans))
    voiced = [(s.start_s, s.end_s) for s in done.segments if not s.hard_reasons]
    assert voiced == [pytest.approx(x) for x in [(0.85, 5.15), (5.85, 8.15), (13.85, 15.15)]]
    (gap,) = [s for s in done.segments if s.hard_reasons == ["no_speech"]]
    assert (gap.start_s, gap.end_s) == pytest.approx((8.15, 13.85))


def test_neighbours_share_a_pause_that_is_too_short_for_both_pads() -> None:
    done = cut(session(12.0, 16_000, [(1.0, 5.0), (5.1, 9.0)]), target_s=6, join_s=0.0)
    assert done.segments[0].end_s == done.segments[1].start_s == pytest.approx(5.05)


def test_speech_without_pauses_is_split_at_its_quietest_place() -> None:
    done = session(70.0, 16_000, [(0.0, 70.0)])
    for place in (21.0, 43.0):
        done.windows[0].pcm[int(place * PCM_RATE) : int((place + 0.2) * PCM_RATE)] = 0
    cut(done)
    edges = [segment.end_s for segment in done.segments[:-1]]
    assert edges[0] == pytest.approx(21.1, abs=0.06) and edges[1] == pytest.approx(43.1, abs=0.06)
    assert all(segment.duration_s <= 30 for segment in done.segments)


@settings(max_examples=60, deadline=None)
@given(st.floats(30.01, 200))
def test_what_is_left_after_splitting_is_never_a_scrap(seconds: float) -> None:
    done = cut(session(seconds, 8_000, [(0.0, seconds)]))
    assert min(segment.duration_s for segment in done.segments) > 7.4


def test_ids_are_stable_and_follow_the_fingerprint() -> None:
    spans = [(0.5, 2.0), (9.0, 11.0)]
    first = [s.segment_id for s in cut(session(12.0, 44_100, spans)).segments]
    again = [s.segment_id for s in cut(session(12.0, 44_100, spans)).segments]
    assert first == again and len(set(first)) == len(first) and all(len(i) == 16 for i in first)
    other = session(12.0, 44_100, spans)
    other.fingerprint = "another"
    assert not set(first) & {s.segment_id for s in cut(other).segments}


def test_numbers_run_over_the_recordings_of_a_session() -> None:
    both = session(6.0, 16_000, [(1.0, 2.0)], "a")
    second = session(6.0, 8_000, [(0.5, 1.5), (3.0, 4.0)], "b")
    both.recordings += second.recordings
    both.windows += second.windows
    both.speech = second.speech + both.speech
    done = cut(both)
    assert [(s.source_id, s.seq) for s in done.segments] == [("a", 0), ("b", 1), ("b", 2)]


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="must rise"):
        SegmentConfig(target_s=40.0)
    with pytest.raises(ValidationError, match="less than or equal to 300"):
        SegmentConfig(max_s=400.0)


def test_the_quietest_place_of_less_than_the_width() -> None:
    assert quietest(np.ones(10)) == 5
