"""The engine: submit, cancel, play; the audio of a request is the same alone and in company."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_generate import D, P, make_layout
from tiny_voxcpm import tiny_model

from voxcpm.audiovae import AudioVAE
from voxcpm.audiovae.config import AudioVAEConfig
from voxcpm.engine.codec_streams import CodecStreams
from voxcpm.engine.engine import Chunk, EngineBusyError, SpeechEngine, plan_slots
from voxcpm.engine.request import GenerationRequest, Row
from voxcpm.inference.patch_codec import decode_patches
from voxcpm.kernels.threads import row_workers
from voxcpm.model.decode_state import DecodeState
from voxcpm.model.flow import Solver
from voxcpm.sequence.prompt_layout import Layout

CODEC: dict[str, Any] = {
    "encoder_dim": 8, "encoder_rates": [2, 4], "latent_dim": D, "decoder_dim": 16, "decoder_rates": [4, 2], "depthwise": False,
    "sample_rate": 16000, "out_sample_rate": 16000, "sr_bin_boundaries": None,
}  # fmt: skip
SAMPLES = P * 8


@pytest.fixture(scope="module")
def codec() -> AudioVAE:
    torch.manual_seed(3)
    return AudioVAE(AudioVAEConfig.from_dict(CODEC)).fold_weight_norm()


def request(seed: int, most: int = 6, **changes: Any) -> GenerationRequest:
    return GenerationRequest(make_layout(seed, 3 + seed % 5), seed=seed, max_len=most, solver=Solver(2), **changes)


def engine_of(codec: AudioVAE, lanes: dict[int, int], **options: Any) -> SpeechEngine:
    """An engine of a model that never stops by itself."""
    model = tiny_model(audio_vae_config=CODEC)
    setattr(model, "stop_logits", lambda hidden: torch.tensor([[1.0, 0.0]]).expand(len(hidden), 2))  # noqa: B010
    return SpeechEngine(model, codec, lanes, **options)


def finish(engine: SpeechEngine) -> dict[int, list[Chunk]]:
    heard: dict[int, list[Chunk]] = {}
    for _ in range(500):
        for chunk in engine.step():
            heard.setdefault(chunk.number, []).append(chunk)
            engine.played(chunk.number, 1e9)
        if engine.idle:
            return heard
    raise AssertionError("the engine does not finish")


def audio(chunks: list[Chunk]) -> np.ndarray:
    return np.concatenate([chunk.samples for chunk in chunks if chunk.samples is not None])


def test_the_audio_of_a_request_does_not_depend_on_its_company(codec: AudioVAE) -> None:
    engine = engine_of(codec, {24: 2, 60: 2})
    numbers: dict[int, int] = {}
    heard: dict[int, list[Chunk]] = {}
    for seed in range(8):
        numbers[engine.submit(request(seed), "live" if seed % 2 else "whole")] = seed
        for chunk in engine.step():
            heard.setdefault(chunk.number, []).append(chunk)
    for number, chunks in finish(engine).items():
        heard.setdefault(number, []).extend(chunks)
    assert engine.load()["free"] == 4 and engine.idle
    alone = engine_of(codec, {60: 1})
    for number, seed in numbers.items():
        same = alone.submit(request(seed))
        expected = finish(alone)[same]
        assert [c.index for c in heard[number]] == list(range(len(expected)))
        assert heard[number][-1].ending == expected[-1].ending is not None
        np.testing.assert_allclose(audio(heard[number]), audio(expected), atol=1e-5)
        assert all(c.samples is not None and len(c.samples) == SAMPLES for c in heard[number])


def test_the_audio_is_that_of_the_whole_latents_after_a_prompt(codec: AudioVAE) -> None:
    layout = make_layout(4, 5, prompt=3)
    engine = engine_of(codec, {60: 1})
    engine.submit(GenerationRequest(layout, max_len=5, solver=Solver(2)), context=layout.context(3))
    (chunks,) = finish(engine).values()
    latents = torch.stack([c.latents for c in chunks if c.latents is not None])
    whole = decode_patches(codec, tiny_model(audio_vae_config=CODEC).config, latents, layout.context(3))
    np.testing.assert_allclose(audio(chunks), whole.numpy(), atol=1e-6)


def test_a_cancelled_request_frees_its_slot_before_the_next_step(codec: AudioVAE) -> None:
    engine = engine_of(codec, {60: 1})
    first, second = engine.submit(request(1, 50)), engine.submit(request(2, 4))
    assert {c.number for c in engine.step()} == {first}
    engine.cancel(first)
    engine.cancel(first)  # a second time changes nothing
    chunks = engine.step()
    assert [(c.number, c.ending) for c in chunks] == [(first, "cancelled"), (second, None)]
    waiting = engine.submit(request(3))
    engine.cancel(waiting)
    heard = finish(engine)
    assert heard[waiting][0].ending == "cancelled" and heard[second][-1].ending == "max_len"
    assert engine.load()["free"] == 1


def test_what_is_not_finite_fails_alone(codec: AudioVAE) -> None:
    nan = torch.full((P, D), torch.nan)
    engine = engine_of(codec, {60: 3})
    good = engine.submit(request(1))
    bad = engine.submit(request(2, noise=lambda i: nan if i == 1 else torch.zeros(P, D)))
    heard = finish(engine)
    assert heard[bad][-1].ending == "failed" and "finite" in str(heard[bad][-1].error) and len(heard[bad]) == 2
    alone = engine_of(codec, {60: 1})
    alone.submit(request(1))
    np.testing.assert_allclose(audio(heard[good]), audio(finish(alone)[0]), atol=1e-5)
    after = engine.submit(request(1))
    np.testing.assert_allclose(audio(finish(engine)[after]), audio(heard[good]), atol=1e-5)


def test_a_request_that_cannot_be_processed_fails_alone(codec: AudioVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(codec, {60: 3})
    model = engine._model
    prefill = model.prefill

    def out_of_memory(layouts: Any, state: Any) -> None:
        if any(layout.length == 4 + 2 for layout in layouts):
            raise RuntimeError("CUDA out of memory")
        prefill(layouts, state)

    monkeypatch.setattr(model, "prefill", out_of_memory)
    good, bad = engine.submit(request(1)), engine.submit(request(2))
    heard = finish(engine)
    assert heard[bad][-1].ending == "failed" and heard[good][-1].ending == "max_len"
    assert engine.load()["free"] == 3


def failing_prefill(engine: SpeechEngine, fails: Callable[[Layout], bool]) -> None:
    """Let the engine run out of memory when it processes these layouts."""
    prefill = engine._model.prefill

    def out_of_memory(layouts: list[Layout], state: DecodeState) -> None:
        if any(fails(layout) for layout in layouts):
            raise RuntimeError("CUDA out of memory")
        prefill(layouts, state)

    setattr(engine._model, "prefill", out_of_memory)  # noqa: B010


def check_slots(engine: SpeechEngine) -> None:
    """The scheduler and the lanes agree on who has which slot."""
    lanes = engine._loop.lanes
    assert {lane.capacity: lane.free for lane in lanes} == engine._scheduler.free
    assert {row.number for lane in lanes for row in lane.rows} == set(engine._scheduler.running)
    assert all(engine._scheduler.running[row.number].lane == lane.capacity for lane in lanes for row in lane.rows)


def test_a_prefill_that_fails_leaves_the_other_rows_in_the_lanes_that_the_scheduler_counts(codec: AudioVAE) -> None:
    engine = engine_of(codec, {24: 1, 60: 1})
    bad = request(1)
    failing_prefill(engine, lambda layout: layout is bad.layout)
    first, second = engine.submit(bad, "whole"), engine.submit(request(2, 8), "whole")
    chunks = engine.step()
    assert [(c.number, c.ending) for c in chunks] == [(first, "failed"), (second, None)]
    check_slots(engine)
    # The second one, which would fit the short lane as well, had been given the long one.
    engine.submit(request(3, 12), "whole")
    long = engine.submit(request(4, 30), "whole")
    assert finish(engine)[long][-1].ending == "max_len"
    check_slots(engine)


def test_a_row_that_finds_no_slot_fails_instead_of_waiting_without_an_end(codec: AudioVAE) -> None:
    engine = engine_of(codec, {60: 1})
    # Something has taken the slot that the scheduler counts as free.
    taken = Row(99, request(1), 6, context_limited=False)
    engine._loop.join([taken])
    number = engine.submit(request(2))
    (chunk,) = [chunk for chunk in engine.step() if chunk.number == number]
    assert chunk.ending == "failed" and not engine._scheduler.running
    engine._loop.leave(taken)
    after = engine.submit(request(2))
    assert finish(engine)[after][-1].ending == "max_len"


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_failing_prefills_and_cancels_lose_no_slot(codec: AudioVAE, data: st.DataObject) -> None:
    engine = engine_of(codec, {24: 2, 60: 1})
    bad: list[Layout] = []
    failing_prefill(engine, lambda layout: any(layout is one for one in bad))
    ended: dict[int, Any] = {}
    numbers: list[int] = []
    expected: dict[int, str] = {}
    for seed in range(data.draw(st.integers(1, 8))):
        one = request(seed, data.draw(st.sampled_from([5, 30])))
        if fails := data.draw(st.integers(0, 2)) == 0:
            bad.append(one.layout)
        number = engine.submit(one, "whole")
        expected[number] = "failed" if fails else "max_len"
        numbers.append(number)
        for _ in range(data.draw(st.integers(0, 2))):
            ended |= {chunk.number: chunk.ending for chunk in engine.step() if chunk.ending is not None}
            check_slots(engine)
        if (left := [n for n in numbers if n not in ended]) and data.draw(st.integers(0, 3)) == 0:
            gone = data.draw(st.sampled_from(left))
            engine.cancel(gone)
            expected[gone] = "cancelled"
    ended |= {number: chunks[-1].ending for number, chunks in finish(engine).items()}
    check_slots(engine)
    assert ended == expected and engine.load()["free"] == 3


def test_a_full_engine_says_when_to_come_back(codec: AudioVAE) -> None:
    engine = engine_of(codec, {60: 1}, queue=1)
    engine.submit(request(1))
    with pytest.raises(EngineBusyError) as caught:
        engine.submit(request(2))
    assert caught.value.retry_after_s >= 1
    with pytest.raises(ValueError, match="no room"):
        engine.submit(GenerationRequest(make_layout(1, 126)))
    finish(engine)
    engine.submit(request(2))
    assert finish(engine)


def test_a_listener_who_does_not_listen_pauses_its_row(codec: AudioVAE) -> None:
    engine = engine_of(codec, {128: 2})
    # The tiny codec's patch lasts 1 ms: 30 s are far away, so the listener is moved instead.
    engine.patch_s = engine._scheduler.patch_s = 10.0
    slow, quick = engine.submit(request(1, 20)), engine.submit(request(2, 20))
    counts = {slow: 0, quick: 0}
    for _ in range(40):
        for chunk in engine.step():
            counts[chunk.number] += 1
            engine.played(quick, 1e9)
    assert counts == {slow: 4, quick: 20} and not engine.idle
    engine.played(slow, 1e9)
    assert len(finish(engine)[slow]) == 16


@pytest.fixture
def torch_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_codec_streams_do_not_mix(threads: int, torch_threads: Callable[[int], None], data: st.DataObject) -> None:
    torch_threads(threads)
    torch.manual_seed(3)
    codec = AudioVAE(AudioVAEConfig.from_dict(CODEC)).fold_weight_norm()
    config = tiny_model(audio_vae_config=CODEC).config
    latents = {n: torch.randn(4, P, D, generator=torch.Generator().manual_seed(n)) for n in range(4)}
    contexts = {n: torch.randn(n, P, D, generator=torch.Generator().manual_seed(50 + n)) for n in latents}
    streams, workers = CodecStreams(codec), row_workers(codec.device)
    assert torch.get_num_threads() == threads
    heard: dict[int, list[np.ndarray]] = {n: [] for n in latents}
    for n in latents:
        streams.start(n, contexts[n])
    while left := [n for n in latents if len(heard[n]) < 4]:
        now = data.draw(st.permutations(left))[: data.draw(st.integers(1, len(left)))]
        patches = torch.stack([latents[n][len(heard[n])] for n in now])
        for n, samples in zip(now, streams.decode(now, patches, workers), strict=True):
            heard[n].append(samples)
            if len(heard[n]) == 4:
                streams.stop(n)
    for n, pieces in heard.items():
        whole = decode_patches(codec, config, latents[n], contexts[n])
        np.testing.assert_allclose(np.concatenate(pieces), whole.numpy(), atol=1e-5)
    with pytest.raises(KeyError, match="not started"):
        streams.decode([0], latents[0][:1])


def test_slots_are_planned_by_memory() -> None:
    model = tiny_model(max_length=8192)
    assert plan_slots(model) == {1024: 2, 2048: 1, 8192: 1}
    assert plan_slots(model, 64) == {1024: 32, 2048: 31, 8192: 1}
    position = 4 * 2 * 2 * 8 * (2 + 1)
    small = plan_slots(model, 64, memory_bytes=position * 8192 * 3)
    assert sum(c * n for c, n in small.items()) <= 8192 * 3 and small[8192] == 1
    assert plan_slots(tiny_model(max_length=300), 4) == {300: 4}
