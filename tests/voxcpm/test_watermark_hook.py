"""The contract of a watermark, by one that does nothing and by a toy: streamed equals whole, and no sample is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from encoded_audio import RATE, Samples, decoded, encoded, sweep
from hypothesis import given
from hypothesis import strategies as st

from voxcpm.provenance.watermark_hook import NO_WATERMARK, Watermark


class ToyWatermark:
    """Changes each block of 960 samples by a number that depends on the block's place and loudness, one block later."""

    block = 960

    def start(self, rate: int) -> Any:
        return 0, np.zeros(0, np.float32)

    def mark(self, samples: Samples, state: Any) -> tuple[Samples, Any]:
        count, held = state
        held = np.concatenate((held, samples))
        out = []
        # A block needs the one after it, as an overlap does.
        while len(held) >= 2 * self.block:
            out.append(self._marked(held[: self.block], count))
            held, count = held[self.block :], count + 1
        return np.concatenate(out) if out else np.zeros(0, np.float32), (count, held)

    def finish(self, state: Any) -> Samples:
        count, held = state
        parts = [self._marked(held[at : at + self.block], count + at) for at in range(0, len(held), self.block)]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _marked(self, block: Samples, count: int) -> Samples:
        sign = 1 if count % 2 else -1
        return (block * np.float32(1 + 0.1 * sign * float(np.sqrt(np.mean(block**2))))).astype(np.float32)


WATERMARKS: dict[str, Watermark] = {"none": NO_WATERMARK, "toy": ToyWatermark()}
WAV = sweep(9_700)


def streamed(watermark: Watermark, wav: Samples, cuts: list[int]) -> Samples:
    state, out, ends = watermark.start(RATE), [], sorted({*cuts, len(wav)})
    for start, end in zip([0, *ends], ends, strict=False):
        samples, state = watermark.mark(wav[start:end], state)
        out.append(samples)
    return np.concatenate([*out, watermark.finish(state)])


@pytest.mark.parametrize("name", WATERMARKS)
@given(st.lists(st.integers(0, len(WAV)), max_size=8), st.integers(0, len(WAV)))
def test_streamed_equals_whole(name: str, cuts: list[int], length: int) -> None:
    wav = WAV[:length]
    found = streamed(WATERMARKS[name], wav, [min(cut, length) for cut in cuts])
    assert len(found) == length
    np.testing.assert_array_equal(found, streamed(WATERMARKS[name], wav, []))


def test_streams_at_the_same_time_do_not_mix() -> None:
    toy = ToyWatermark()
    states, outs = [toy.start(RATE), toy.start(RATE)], ([], [])  # type: ignore[var-annotated]
    for at in range(0, len(WAV), 1000):
        for number, wav in enumerate((WAV, -WAV)):
            samples, states[number] = toy.mark(wav[at : at + 1000], states[number])
            outs[number].append(samples)
    for out, state, wav in zip(outs, states, (WAV, -WAV), strict=True):
        np.testing.assert_array_equal(np.concatenate([*out, toy.finish(state)]), streamed(toy, wav, []))


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("rate", [RATE, 24_000])
def test_every_answer_passes_the_watermark(whole: bool, rate: int) -> None:
    plain, _ = decoded(encoded("wav", WAV, rate, whole=whole))
    found, _ = decoded(encoded("wav", WAV, rate, range(0, len(WAV), 777), whole=whole, watermark=ToyWatermark()))
    np.testing.assert_allclose(found, streamed(ToyWatermark(), plain, []), atol=2 / 32768)
    assert np.abs(found - plain).max() > 10 / 32768
