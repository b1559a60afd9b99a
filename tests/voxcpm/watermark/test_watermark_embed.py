"""The mark in a stream: any chunks give the same bits, at any rate, and nothing is lost."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from fakes.watermark_speech import Samples, babble
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from voxcpm.provenance.watermark_hook import Watermark
from voxcpm.watermark import PUBLIC_KEY, SpeechMark, mark, new_key

RATES = [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000]


def streamed(watermark: SpeechMark, samples: Samples, rate: int, cuts: list[int]) -> Samples:
    """Return marked samples that went in chunk by chunk."""
    state, out = watermark.start(rate), []
    for start, end in pairwise([0, *sorted(min(cut, len(samples)) for cut in cuts), len(samples)]):
        piece, state = watermark.mark(samples[start:end], state)
        out.append(piece)
    return np.concatenate([*out, watermark.finish(state)])


@settings(max_examples=25, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    st.one_of(st.sampled_from(RATES), st.integers(8_000, 48_000)),
    st.floats(0, 1.5),
    st.lists(st.floats(0, 1), max_size=12),
    st.integers(0, 99),
)
def test_streamed_equals_whole(rate: int, seconds: float, cuts: list[float], seed: int) -> None:
    samples, watermark = babble(seconds, rate, seed), SpeechMark(0xBEEF, seed=seed)
    found = streamed(watermark, samples, rate, [round(cut * len(samples)) for cut in cuts])
    assert len(found) == len(samples)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, mark(samples, rate, 0xBEEF, seed=seed))


@pytest.mark.parametrize("chunk", [1, 7, 960, 7_680, 48_000])
def test_equal_chunks_give_the_same_bits(chunk: int) -> None:
    samples, watermark = babble(2.1 if chunk > 1 else 0.2, 48_000), SpeechMark(1, seed=3)
    cuts = list(range(0, len(samples), chunk))
    np.testing.assert_array_equal(streamed(watermark, samples, 48_000, cuts), streamed(watermark, samples, 48_000, []))


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_chunks_of_160_ms_come_out_one_hop_later(rate: int) -> None:
    watermark, hop = SpeechMark(1), rate // 50
    state = watermark.start(rate)
    for number in range(4):
        out, state = watermark.mark(babble(0.16, rate, number), state)
        assert len(out) == (7 * hop if number == 0 else 8 * hop)


def test_streams_do_not_mix() -> None:
    watermark, samples = SpeechMark(5, seed=1), babble(1, 24_000)
    states = [watermark.start(24_000), watermark.start(24_000)]
    outs: tuple[list[Samples], list[Samples]] = ([], [])
    for at in range(0, len(samples), 1000):
        for number, part in enumerate((samples, -samples)):
            piece, states[number] = watermark.mark(part[at : at + 1000], states[number])
            outs[number].append(piece)
    for out, state, part in zip(outs, states, (samples, -samples), strict=True):
        np.testing.assert_array_equal(np.concatenate([*out, watermark.finish(state)]), mark(part, 24_000, 5, seed=1))


def test_a_phase_comes_from_the_seed_or_from_the_system() -> None:
    samples = babble(0.5, 16_000)
    assert (mark(samples, 16_000, 1, seed=4) == mark(samples, 16_000, 1, seed=4)).all()
    assert (mark(samples, 16_000, 1, seed=4) != mark(samples, 16_000, 1, seed=5)).any()
    assert len({mark(samples, 16_000, 1).tobytes() for _ in range(6)}) > 2


@pytest.mark.parametrize("rate", RATES)
def test_silence_stays_silence_and_the_change_is_small(rate: int) -> None:
    assert not mark(np.zeros(rate // 2, np.float32), rate, 9).any()
    samples = babble(1, rate)
    added = mark(samples, rate, 9) - samples
    assert 12 < 10 * np.log10((samples**2).sum() / (added**2).sum()) < 20


def test_what_lies_above_the_bands_stays() -> None:
    samples = babble(1, 48_000)
    spectrum = np.abs(np.fft.rfft((mark(samples, 48_000, 9) - samples) * np.hanning(len(samples))))
    assert spectrum[7_500:].max() < 1e-3 * spectrum[:7_000].max()


def test_samples_are_limited_and_counted() -> None:
    rate = 16_000
    loud = babble(1, rate)
    loud = np.clip(4 * loud / np.abs(loud).max(), -1, 1)
    watermark = SpeechMark(1, seed=0)
    out, state = watermark.mark(loud, watermark.start(rate))
    out = np.concatenate((out, watermark.finish(state)))
    assert np.abs(out).max() <= 1
    assert 0 < state.clipped <= np.count_nonzero(np.abs(out) == 1)
    # A clip that is louder than full scale already is not cut to it.
    assert np.abs(mark(3 * loud, rate, 1, seed=0)).max() > 2.5


@pytest.mark.parametrize("count", [0, 1, 100, 1_600])
def test_short_clips(count: int) -> None:
    samples = babble(1, 16_000)[:count]
    assert len(mark(samples, 16_000, 3)) == count


def test_a_chunk_needs_little_memory() -> None:
    watermark = SpeechMark(1)
    state = watermark.start(48_000)
    chunks = [babble(0.16, 48_000, number) for number in range(4)]
    for chunk in chunks[:2]:
        _, state = watermark.mark(chunk, state)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for chunk in chunks[2:]:
        _, state = watermark.mark(chunk, state)
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - before < 600_000
    assert after - before < 100_000


def test_it_is_a_watermark_of_the_hook() -> None:
    watermark: Watermark = SpeechMark(1, (PUBLIC_KEY, new_key()))
    assert "secret" not in repr(watermark)
    assert "array" not in repr(watermark.start(16_000))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="payload 65536"):
        SpeechMark(65_536)
    with pytest.raises(ValueError, match="at least one key"):
        SpeechMark(1, [])
    with pytest.raises(ValueError, match="4000 to 384000 Hz, not 100"):
        SpeechMark(1).start(100)
    with pytest.raises(ValueError, match=r"one channel \[n\], not into samples of shape \(9, 2\)"):
        mark(np.zeros((9, 2), np.float32), 16_000, 1)


def test_a_seed_may_be_negative() -> None:
    assert len(mark(babble(0.1, 16_000), 16_000, 1, seed=-5)) == 1_600
