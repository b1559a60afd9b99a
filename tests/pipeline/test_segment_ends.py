"""Where `segment` may cut: the stretch that is searched for a split, and how far an end may move."""

from __future__ import annotations

import itertools
from typing import Any, cast

import numpy as np
import pytest
from test_segment import cut, session

from pipeline.records import PCM_RATE, Recording, Session, Source
from pipeline.stages import segment
from pipeline.stages.segment import CutSegments, SegmentConfig, pad_stretches

Excerpt = tuple[int, int]


def quiet_at(seconds: float, places: dict[float, int]) -> Session:
    """Loud noise; 100 ms from each place on have the amplitude given for it."""
    whole = session(seconds, 16_000, [])
    whole.windows[0].pcm[:] = np.random.default_rng(0).integers(-9000, 9000, len(whole.windows[0].pcm))
    for start, level in places.items():
        whole.windows[0].pcm[round(start * PCM_RATE) :][: PCM_RATE // 10] = level
    return whole


@pytest.mark.parametrize("inside", [0.0, 14.75])
@pytest.mark.parametrize(("end", "low"), [(33.0, 10.725), (92.0, 16.85)])
def test_speech_is_split_in_the_later_half_of_what_fits(end: float, low: float, inside: float) -> None:
    """29.7 s fit without the pads: 2 s to 31.7 s, or to a quarter (7.425 s) before the end; half of 29.7 s is searched."""
    high = low + 14.85
    # Just outside of what is searched it is quieter still, and just inside less so.
    whole = quiet_at(end, {low - 0.11: 0, high + 0.01: 0, round(low + inside, 4): 3})
    pieces = CutSegments(SegmentConfig())._split(whole, "a", 2.0, end)
    assert pieces[0][0] == 2.0 and pieces[0][1] == pytest.approx(low + inside + 0.05, abs=1e-3)
    assert len(pieces) == (2 if end == 33 else len(pieces)) and pieces[-1][1] == end
    for before, after in itertools.pairwise(pieces):
        assert before[1] == after[0] and 7.4 <= before[1] - before[0] <= 29.7
    assert 7.4 <= pieces[-1][1] - pieces[-1][0] <= 29.7


def test_a_pad_on_each_side_is_kept_free_of_what_fits() -> None:
    stage = CutSegments(SegmentConfig(max_s=4.0, target_s=4.0, pad_s=0.25))
    whole = session(10.0, 16_000, [])
    assert stage._split(whole, "a", 1.0, 4.5) == [(1.0, 4.5)]
    assert len(stage._split(whole, "a", 1.0, 4.51)) == 2


class Ramp:
    """Audio whose samples say where they are: each is its index at 16 kHz."""

    def pcm(self, source_id: str, start_s: float, end_s: float) -> np.ndarray:
        assert source_id == "a"
        return np.arange(round(start_s * PCM_RATE), round(end_s * PCM_RATE), dtype=np.int32)


Asked = tuple[float, float, float, float, float]


def settled(
    speech: list[Excerpt],
    pieces: list[Excerpt],
    choice: str,
    monkeypatch: pytest.MonkeyPatch,
    rate: int,
    **settings: float,
) -> tuple[list[Excerpt], list[Asked]]:
    """Pieces whose ends are moved to the `choice` ("low", "high", "wanted") of what is allowed, in a recording of 100 s.

    And what was asked for each end that may move: (wanted, low, high, start and end of the audio that is judged).
    """
    asked: list[Asked] = []

    def settle(samples: np.ndarray, wanted: int, low: int, high: int) -> int:
        first = samples[0] * 32768.0
        asked.append((first + wanted, first + low, first + high, first, samples[-1] * 32768.0 + 1))
        return {"low": low, "high": high, "wanted": wanted}[choice]

    monkeypatch.setattr(segment, "settle", settle)
    recording = Recording(Source("a", "a", "a", "s", 1, ""), 100.0, rate, 1)
    config = SegmentConfig(**({"max_s": 10.0, "target_s": 5.0, "reach_s": 0.3} | settings))
    return CutSegments(config)._settle(cast(Any, Ramp()), recording, speech, pieces), asked


SPEECH = [(32_000, 64_000), (80_000, 112_000), (160_000, 200_000), (208_000, 260_000)]
#: The first two and the last two share a pause.
PIECES = [(30_000, 72_000), (72_000, 114_000), (157_000, 205_000), (205_000, 262_000)]


def test_ends_move_within_their_pause_and_their_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.3 s are 4800 samples. A cut that two share may move through the whole pause; the other ends not into speech."""
    low, asked = settled(SPEECH, PIECES, "low", monkeypatch, 16_000)
    assert low == [(25_200, 64_000), (64_000, 112_000), (152_200, 200_000), (200_000, 260_000)]
    assert asked == [
        (30_000, 25_200, 32_000, 25_200, 72_000),
        (72_000, 64_000, 80_000, 25_200, 114_000),
        (114_000, 112_000, 118_800, 64_000, 118_800),
        (157_000, 152_200, 160_000, 152_200, 205_000),
        (205_000, 200_000, 208_000, 152_200, 262_000),
        (262_000, 260_000, 266_800, 200_000, 266_800),
    ]
    high, asked = settled(SPEECH, PIECES, "high", monkeypatch, 16_000)
    assert high == [(32_000, 80_000), (80_000, 118_800), (160_000, 208_000), (208_000, 266_800)]
    assert [one[3:] for one in asked] == [
        (25_200, 72_000), (32_000, 114_000), (80_000, 118_800), (152_200, 205_000), (160_000, 262_000), (208_000, 266_800),
    ]  # fmt: skip
    assert settled(SPEECH, PIECES, "wanted", monkeypatch, 16_000)[0] == PIECES


def test_ends_move_neither_into_another_piece_nor_beyond_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    speech = [(1_000, 8_000), (12_000, 20_000), (1_590_000, 1_597_000)]
    pieces = [(900, 9_000), (11_000, 21_000), (1_589_000, 1_598_000)]
    low, _ = settled(speech, pieces, "low", monkeypatch, 16_000)
    assert low == [(0, 8_000), (8_000, 20_000), (1_584_200, 1_597_000)]
    high, _ = settled(speech, pieces, "high", monkeypatch, 16_000)
    # The first two share their cut from now on: the second's start stays.
    assert high == [(1_000, 11_000), (11_000, 25_800), (1_590_000, 1_600_000)]
    assert settled(speech, pieces, "high", monkeypatch, 16_000, reach_s=0.0)[0] == [
        (1_000, 9_000), (12_000, 21_000), (1_590_000, 1_598_000),
    ]  # fmt: skip


def test_no_end_moves_so_far_that_a_piece_gets_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 s are 32000 samples."""
    speech = [(10_000, 34_000), (44_000, 66_000), (90_000, 118_000)]
    pieces = [(9_000, 39_000), (39_000, 68_000), (89_000, 120_000)]
    limits = {"max_s": 2.0, "target_s": 2.0, "min_s": 0.1}
    low, asked = settled(speech, pieces, "low", monkeypatch, 16_000, **limits)
    # The first start, the shared cut and the last start stop where their piece has 2 s.
    assert low == [(7_000, 36_000), (36_000, 66_000), (88_000, 118_000)]
    assert asked[1][1:3] == (36_000, 39_000) and asked[0][1] == 7_000
    high, asked = settled(speech, pieces, "high", monkeypatch, 16_000, **limits)
    assert high == [(10_000, 42_000), (42_000, 72_800), (90_000, 122_000)]
    assert asked[1][1:3] == (36_000, 42_000)
    # Four pieces that share their cuts: each cut is bound by the piece after it, wherever the others lie.
    speech = [(0, 20_000), (30_000, 40_000), (60_000, 62_000), (80_000, 90_000)]
    pieces = [(0, 28_000), (28_000, 52_000), (52_000, 79_000), (79_000, 96_000)]
    low, _ = settled(speech, pieces, "low", monkeypatch, 16_000, **limits)
    assert low == [(0, 20_000), (20_000, 47_000), (47_000, 64_000), (64_000, 90_000)]
    high, _ = settled(speech, pieces, "high", monkeypatch, 16_000, **limits)
    assert high == [(0, 30_000), (30_000, 60_000), (60_000, 80_000), (80_000, 100_800)]


def test_an_end_that_cannot_move_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    full = [(0, 1_600_000)]
    assert settled(full, full, "high", monkeypatch, 16_000) == (full, [])


def test_a_piece_that_is_too_long_already_is_not_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    speech = [(16_000, 60_000)]
    pieces = [(15_000, 61_000)]
    limits = {"max_s": 2.0, "target_s": 2.0, "min_s": 0.1}
    high, asked = settled(speech, pieces, "high", monkeypatch, 16_000, **limits)
    assert high == [(16_000, 61_000)]
    # All that lies between the two bounds of an end is judged, and all of the piece on its other side.
    assert asked == [(15_000, 15_000, 16_000, 15_000, 61_000), (61_000, 60_000, 61_000, 16_000, 61_000)]
    low, asked = settled(speech, pieces, "low", monkeypatch, 16_000, **limits)
    assert low == [(15_000, 60_000)] and asked[1] == (61_000, 60_000, 61_000, 15_000, 61_000)


@pytest.mark.parametrize("rate", [8_000, 11_127, 48_000])
def test_ends_lie_on_samples_of_the_recording_and_where_they_stay_nothing_is_rounded(
    rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech = [(2 * rate + 1, 4 * rate + 1), (5 * rate, 7 * rate + 1)]
    pieces = [(2 * rate - 5, 9 * rate // 2), (9 * rate // 2, 7 * rate + 7)]
    assert settled(speech, pieces, "wanted", monkeypatch, rate)[0] == pieces
    reach = round(0.3 * rate)
    step = 1 if rate > PCM_RATE else 0
    low, asked = settled(speech, pieces, "low", monkeypatch, rate)
    wanted = [2 * rate - 5 - reach, speech[0][1], speech[0][1], speech[1][1]]
    assert [edge for piece in low for edge in piece] == pytest.approx(wanted, abs=2 * step)
    assert low[0][0] >= wanted[0] and low[0][1] == low[1][0] >= speech[0][1] and low[1][1] >= speech[1][1]
    high, _ = settled(speech, pieces, "high", monkeypatch, rate)
    wanted = [speech[0][0], speech[1][0], speech[1][0], 7 * rate + 7 + reach]
    assert [edge for piece in high for edge in piece] == pytest.approx(wanted, abs=2 * step)
    assert high[0][0] <= speech[0][0] and high[0][1] == high[1][0] <= speech[1][0] and high[1][1] <= wanted[3]
    # What is judged is asked for in seconds and told in samples of 16 kHz.
    for wanted_16k, *_ in asked[:1]:
        assert wanted_16k == pytest.approx((2 * rate - 5) * PCM_RATE / rate, abs=1)


def test_pads_take_at_most_half_of_the_pause_and_all_of_the_ends() -> None:
    assert pad_stretches([(10, 20), (27, 40), (90, 95)], 100, 6) == [(4, 23), (24, 46), (84, 100)]
    assert pad_stretches([(3, 20)], 22, 6) == [(0, 22)] and pad_stretches([], 22, 6) == []
    assert pad_stretches([(5, 10), (10, 20)], 30, 0) == [(5, 10), (10, 20)]


def test_a_segment_of_just_the_shortest_length_is_kept() -> None:
    done = cut(session(4.0, 16_000, [(1.0, 1.5), (3.0, 3.4999)]), pad_s=0.0, reach_s=0.0)
    assert [s.hard_reasons for s in done.segments] == [[], ["too_short"]]


def test_a_segment_knows_whether_separated_audio_is_in_it() -> None:
    whole = session(12.0, 16_000, [(1.0, 2.0), (4.0, 5.0), (7.0, 8.0)])
    whole.recordings[0].separation.kept.append((4.5, 4.6))
    assert [s.separated for s in cut(whole).segments] == [False, True, False]
