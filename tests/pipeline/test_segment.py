"""Cutting: every sample is in one segment or in the silence, cuts lie in pauses, ids are stable."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from catalogs.corpus.ids import segment_id
from pipeline.records import PCM_RATE, PcmWindow, Recording, Session, Source, SpeechSpan
from pipeline.speech.quiet import quietest
from pipeline.stages.segment import CutSegments, SegmentConfig


def session(
    seconds: float, rate: int, speech: list[tuple[float, float]], name: str = "a", seed: int | None = None
) -> Session:
    """A recording of even noise, or with a seed of noise whose level changes every 40 ms, so that ends are moved."""
    recording = Recording(Source(name, name, name, "s", 1, ""), round(seconds * rate) / rate, rate, 1)
    dice = np.random.default_rng(0 if seed is None else seed)
    pcm = dice.integers(-900, 900, round(seconds * PCM_RATE)).astype(np.int16)
    if seed is not None:
        level = np.repeat(10 ** dice.uniform(-3, 0, len(pcm) // 640 + 1), 640)[: len(pcm)]
        pcm = (pcm * level * 30).astype(np.int16)
    return Session(
        "s", "fp", "", [recording], [PcmWindow(name, 0.0, pcm)], [SpeechSpan(name, start, end) for start, end in speech]
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
    st.one_of(st.none(), st.integers(0, 2**32 - 1)),
)
def test_every_sample_is_accounted_for_and_no_speech_is_lost(
    case: tuple[float, list[tuple[float, float]]], rate: int, pad_s: float, max_s: float, seed: int | None
) -> None:
    seconds, spans = case
    done = cut(session(seconds, rate, spans, seed=seed), pad_s=pad_s, max_s=max_s, target_s=max_s / 2)
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
    # No pad reaches into a neighbor's speech: a cut between two spans lies in their pause.
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


def levels(seconds: float, quiet: list[tuple[float, float]]) -> np.ndarray:
    """Loud noise with quiet stretches."""
    pcm = np.random.default_rng(0).integers(-9000, 9000, round(seconds * PCM_RATE)).astype(np.int16)
    for start, end in quiet:
        pcm[round(start * PCM_RATE) : round(end * PCM_RATE)] //= 1000
    return pcm


@pytest.mark.parametrize(("quiet", "place"), [((5.14, 5.22), 5.18), ((4.98, 5.06), 5.03)])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_cut_that_two_share_moves_to_where_their_pause_is_quiet(
    quiet: tuple[float, float], place: float, rate: int
) -> None:
    spans = [(1.0, 5.0), (5.2, 9.0), (9.2, 12.0), (13.0, 15.0)]
    done = session(16.0, rate, spans)
    pause = (9.12, 9.2)
    done.windows[0].pcm[:] = levels(16.0, [(2.0, 2.5), (6.0, 6.5), (10.0, 10.5), (14, 14.2), quiet, pause])
    first, second, third, fourth = cut(done, target_s=4.0, join_s=0.0).segments
    assert first.end_s == second.start_s and 5.0 <= first.end_s <= 5.2
    assert first.end_s == pytest.approx(place, abs=0.025)
    assert second.end_s == third.start_s == pytest.approx(9.16, abs=0.025)
    assert third.end_s < fourth.start_s


@pytest.mark.parametrize(
    ("reach", "head", "tail"),
    [(0.3, 0.66, 5.34), (0.0, 0.85, 5.15), (0.1, 0.85, 5.15)],
)
def test_an_end_moves_to_a_quiet_place_within_reach(reach: float, head: float, tail: float) -> None:
    done = session(6.0, 16_000, [(1.0, 5.0)])
    done.windows[0].pcm[:] = levels(6.0, [(2.0, 2.5), (0.6, 0.7), (5.3, 5.4)])
    (segment,) = [s for s in cut(done, reach_s=reach).segments if not s.hard_reasons]
    near = 0.04 if reach == 0.3 else reach + 0.151
    assert segment.start_s == pytest.approx(head, abs=near) and segment.end_s == pytest.approx(tail, abs=near)


def test_no_end_that_moves_makes_a_segment_too_long() -> None:
    done = session(6.0, 16_000, [(1.0, 2.75), (2.8, 4.55)])
    done.windows[0].pcm[:] = levels(6.0, [(1.5, 1.7), (3.5, 3.7), (0.5, 0.75), (4.8, 5.0)])
    for segment in cut(done, max_s=2.0, target_s=2.0, join_s=0.0, min_s=0.3).segments:
        assert segment.duration_s <= 2.0 + 1e-4 or segment.hard_reasons == ["no_speech"]


@settings(max_examples=60, deadline=None)
@given(speech(), st.integers(0, 2**32 - 1), st.floats(0.01, 0.25), st.sampled_from([4.0, 30.0]))
def test_two_that_share_a_pause_share_their_cut(
    case: tuple[float, list[tuple[float, float]]], seed: int, pad_s: float, max_s: float
) -> None:
    # An even number of samples: of an odd one each side gets the smaller half, and the two ends are moved one by one.
    seconds, spans = case[0], [(round(start * 8000) / 8000, round(end * 8000) / 8000) for start, end in case[1]]
    done = cut(session(seconds, 16_000, spans, seed=seed), pad_s=pad_s, max_s=max_s, target_s=max_s / 2, join_s=0.0)
    voiced = [s for s in done.segments if "no_speech" not in s.hard_reasons]
    for before, after in itertools.pairwise(spans):
        left = max((s for s in voiced if s.start_s < before[1] - 1e-3), key=lambda s: s.start_s, default=None)
        right = min((s for s in voiced if s.end_s > after[0] + 1e-3), key=lambda s: s.end_s, default=None)
        if left is None or right is None or left is right:
            continue
        pause = after[0] - before[1]
        if pause < 2 * pad_s - 0.001:
            assert left.end_s == right.start_s
        assert before[1] - 1e-3 <= left.end_s <= min(after[0], before[1] + pad_s + 0.3) + 1e-3
        assert max(before[1], after[0] - pad_s - 0.3) - 1e-3 <= right.start_s <= after[0] + 1e-3


def test_speech_beyond_the_recording_s_end_makes_no_segment() -> None:
    done = cut(session(5.0, 16_000, [(1.0, 2.0), (4.0, 5.01), (5.01, 5.02)]))
    assert [(s.start_s, s.end_s) for s in done.segments] == [pytest.approx((0.85, 2.15)), pytest.approx((3.85, 5.0))]
    done = cut(session(5.0, 16_000, [(4.0, 5.005), (5.01, 5.02)]), join_s=0.0)
    assert [s.end_s for s in done.segments if not s.hard_reasons] == [5.0] and min(
        s.duration_s for s in done.segments
    ) > 0
    assert cut(session(0.0, 16_000, [])).segments == []


def test_speech_of_just_the_longest_length_is_not_split() -> None:
    done = cut(session(4.0, 16_000, [(1.0, 2.5)]), max_s=2.0, target_s=2.0, pad_s=0.25, reach_s=0.0)
    assert len([s for s in done.segments if not s.hard_reasons]) == 1


def test_a_rejected_stretch_is_five_seconds_long() -> None:
    done = cut(session(20.0, 16_000, [(5.15, 8.0), (13.3, 15.0)]))
    silent = [(s.start_s, s.end_s) for s in done.segments if s.hard_reasons]
    assert silent == [pytest.approx((0.0, 5.0)), pytest.approx((8.15, 13.15))]
    assert done.recordings[0].silence_s == pytest.approx(20 - 15.15)


def test_the_defaults_are_those_of_the_docs() -> None:
    assert SegmentConfig().model_dump(include={"min_s", "max_s", "target_s", "join_s", "pad_s", "reach_s", "gap_s"}) == {
        "min_s": 0.5, "max_s": 30.0, "target_s": 15.0, "join_s": 0.6, "pad_s": 0.15, "reach_s": 0.3, "gap_s": 5.0,
    }  # fmt: skip
    for name, good, bad in (
        ("min_s", 0.01, 0.0), ("max_s", 300.0, 300.1), ("join_s", 0.0, -0.1), ("pad_s", 0.25, 0.26), ("pad_s", 0.0, -0.01),
        ("reach_s", 1.0, 1.1), ("reach_s", 0.0, -0.1), ("gap_s", 0.01, 0.0),
    ):  # fmt: skip
        SegmentConfig(**{name: good})
        with pytest.raises(ValidationError, match=name):
            SegmentConfig(**{name: bad})
    SegmentConfig(max_s=2.0, target_s=2.0, min_s=0.5)
    with pytest.raises(ValidationError, match="max_s"):
        SegmentConfig(max_s=1.9, target_s=1.0, min_s=0.1)


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


def test_an_id_is_that_of_the_samples_from_the_first_to_the_last() -> None:
    done = cut(session(12.0, 44_100, [(1.0, 4.0), (6.0, 9.0)]))
    assert len(done.segments) > 1
    for segment in done.segments:
        first, last = round(segment.start_s * 44_100), round(segment.end_s * 44_100)
        assert segment.segment_id == segment_id(segment.source_id, first, last, done.fingerprint)


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
    with pytest.raises(ValidationError, match="a quarter"):
        SegmentConfig(min_s=2.1, target_s=4.0, max_s=8.0)
    with pytest.raises(ValidationError, match="must rise"):
        SegmentConfig(min_s=2.0, target_s=1.9)
    SegmentConfig(min_s=2.0, target_s=2.0, max_s=8.0)
    SegmentConfig(min_s=2.0, target_s=8.0, max_s=8.0)


def test_the_quietest_place_of_less_than_the_width() -> None:
    assert quietest(np.ones(10)) == 5
