"""While nobody listens, the audio of a step is decoded beside the next step: the same chunks, one step later."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_generate import D, P
from test_speech_engine import CODEC, audio, engine_of, finish, request

import voxcpm.engine.engine as engine_module
from voxcpm.audiovae import AudioVAE
from voxcpm.audiovae.config import AudioVAEConfig
from voxcpm.engine.engine import Chunk, SpeechEngine
from voxcpm.engine.scheduler import Kind


@pytest.fixture(scope="module", autouse=True)
def two_threads() -> Iterator[None]:
    """Two threads of torch, and costs that count as known after one step."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "_LEARNED", 1)
        yield
    torch.set_num_threads(before)


@cache
def codec() -> AudioVAE:
    torch.manual_seed(3)
    return AudioVAE(AudioVAEConfig.from_dict(CODEC)).fold_weight_norm()


@cache
def alone(seed: int, most: int) -> np.ndarray:
    """Audio of a request that nothing else accompanies and somebody hears, so that each step is decoded at its end."""
    engine = engine_of(codec(), {60: 1})
    engine.submit(request(seed, most), "live")
    (chunks,) = finish(engine).values()
    return audio(chunks)


def warm(lanes: dict[int, int]) -> SpeechEngine:
    """An engine that knows the costs of a step."""
    engine = engine_of(codec(), lanes)
    engine.submit(request(0, 2))
    finish(engine)
    return engine


def test_a_step_returns_the_audio_of_the_step_before() -> None:
    engine = warm({60: 3})
    numbers = [engine.submit(request(seed, 3 + seed), "whole") for seed in range(2)]
    # Three slots, one of which is kept for listeners: both run.
    indices = []
    while not engine.idle:
        indices.append([(chunk.number, chunk.index) for chunk in engine.step()])
    first, second = numbers
    assert indices == [
        [],
        [(first, 0), (second, 0)],
        [(first, 1), (second, 1)],
        [(first, 2), (second, 2)],
        [(second, 3)],
    ]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_request_gets_its_audio_in_order_and_one_end(data: st.DataObject) -> None:
    engine = warm({60: 4})
    heard: dict[int, list[Chunk]] = {}
    asked: dict[int, tuple[int, int]] = {}
    gone: set[int] = set()

    def step() -> None:
        for chunk in engine.step():
            heard.setdefault(chunk.number, []).append(chunk)

    for _ in range(data.draw(st.integers(2, 8))):
        seed, most = data.draw(st.integers(0, 4)), data.draw(st.sampled_from([2, 4, 7]))
        kinds: list[Kind] = ["whole", "whole", "whole", "live"]
        kind = data.draw(st.sampled_from(kinds))
        asked[engine.submit(request(seed, most), kind, deadline_s=1e9)] = (seed, most)
        for _ in range(data.draw(st.integers(0, 3))):
            step()
        open_ones = [n for n in asked if n not in gone and not any(c.ending for c in heard.get(n, []))]
        if open_ones and data.draw(st.integers(0, 3)) == 0:
            number = data.draw(st.sampled_from(open_ones))
            engine.cancel(number)
            gone.add(number)
    for _ in range(200):
        if engine.idle:
            break
        step()
        for number in asked:
            engine.played(number, 1e9)
    assert engine.idle and engine.load()["free"] == 4
    for number, (seed, most) in asked.items():
        chunks = heard[number]
        assert [chunk.ending is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        whole = alone(seed, most)
        if number in gone:
            assert chunks[-1].ending == "cancelled"
            kept = chunks[:-1]
        else:
            assert chunks[-1].ending == "max_len"
            kept = chunks
        assert [chunk.index for chunk in kept] == list(range(len(kept)))
        if kept:
            np.testing.assert_allclose(audio(kept), whole[: len(audio(kept))], atol=1e-5)
        if number not in gone:
            assert len(audio(kept)) == len(whole)


def test_a_request_that_is_cancelled_before_its_last_patch_is_decoded_gets_no_audio_after_that() -> None:
    engine = warm({60: 3})
    number = engine.submit(request(1, 2), "whole")
    while engine.load()["running"] or engine.load()["waiting"]:
        engine.step()
    assert not engine.idle, "its last patch is not decoded yet"
    engine.cancel(number)
    assert [(chunk.number, chunk.ending, chunk.samples) for chunk in engine.step()] == [(number, "cancelled", None)]
    assert engine.idle and engine.step() == []


def test_a_listener_who_comes_does_not_wait_a_step_longer() -> None:
    engine = warm({60: 4})
    whole = engine.submit(request(1, 20), "whole")
    for _ in range(3):
        engine.step()
    live = engine.submit(request(2, 20), "live", deadline_s=1e9)
    chunks = engine.step()
    # What was made before comes first, then the step's own patches, at once.
    assert [(chunk.number, chunk.index) for chunk in chunks] == [(whole, 2), (live, 0), (whole, 3)] or [
        (chunk.number, chunk.index) for chunk in chunks
    ] == [(whole, 2), (whole, 3), (live, 0)]
    assert {(chunk.number, chunk.index) for chunk in engine.step()} >= {(live, 1)}


def test_what_is_not_finite_fails_alone_beside_the_codec() -> None:
    engine = warm({60: 4})
    nan = torch.full((P, D), torch.nan)
    good = engine.submit(request(1, 4), "whole")
    bad = engine.submit(request(2, 4, noise=lambda i: nan if i == 1 else torch.zeros(P, D)), "whole")
    heard = finish(engine)
    assert heard[bad][-1].ending == "failed" and len(heard[bad]) == 2
    np.testing.assert_allclose(audio(heard[good]), alone(1, 4), atol=1e-5)


def test_some_steps_are_made_as_with_listeners_so_that_their_cost_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_LEARN_AGAIN", 5)
    engine = warm({60: 4})
    costs = engine._scheduler.costs
    before = costs.steps
    engine.submit(request(1, 20), "whole")
    finish(engine)
    assert 3 <= costs.steps - before <= 5
