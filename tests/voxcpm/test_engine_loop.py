"""The generation loop: whatever joins, leaves or is left out of steps, each row is generated as if it were alone."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_closeness import assert_close
from test_generate import D, P, make_layout
from tiny_voxcpm import tiny_model
from torch import Tensor

from voxcpm.engine.batch import generate_patches
from voxcpm.engine.lanes import make_lanes
from voxcpm.engine.loop import GenerationLoop
from voxcpm.engine.prefixes import PrefixCache
from voxcpm.engine.request import GenerationRequest, admit
from voxcpm.kernels.threads import row_workers
from voxcpm.model.decode_state import DecodeState
from voxcpm.model.flow import Solver
from voxcpm.sequence.prompt_layout import Layout


def voiced(seed: int, text: int, voice: int) -> Layout:
    """A text in one of several voices."""
    patches = torch.randn(3, P, D, generator=torch.Generator().manual_seed(1000 + voice))
    return replace(make_layout(seed, text, reference=3), patches=patches)


REQUESTS = st.lists(
    st.builds(
        lambda seed, text, voice, cfg, most, steps: GenerationRequest(
            # The voice is one of two, so that the cache of voices is used.
            voiced(seed, text, voice) if voice else make_layout(seed, text),
            seed=seed, cfg=cfg, min_len=1, max_len=most, solver=Solver(steps),
        ),
        st.integers(0, 99), st.integers(1, 20), st.integers(0, 2), st.sampled_from([1.0, 2.0]), st.integers(1, 9),
        st.sampled_from([3, 4]),
    ),
    min_size=1, max_size=7,
)  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(requests=REQUESTS, data=st.data())
def test_joins_pauses_lanes_and_voices_change_nothing(requests: list[GenerationRequest], data: st.DataObject) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.stop_head.weight.mul_(30)
    alone = [generate_patches(model, [request])[0] for request in requests]
    loop = GenerationLoop(model, make_lanes(model, {16: 2, 48: 2}), PrefixCache())
    prefill, fails = model.prefill, False

    def failing(layouts: list[Layout], state: DecodeState) -> None:
        if fails:
            raise MemoryError("no room")
        prefill(layouts, state)

    setattr(model, "prefill", failing)  # noqa: B010
    waiting = [admit(model.config, number, request) for number, request in enumerate(requests)]
    made: list[list[Tensor]] = [[] for _ in requests]
    left: set[int] = set()
    while waiting or loop.rows:
        if waiting and (not loop.rows or data.draw(st.booleans())):
            fails = data.draw(st.integers(0, 4)) == 4
            with contextlib.suppress(MemoryError):
                loop.join(waiting[: data.draw(st.integers(1, 3))])
            # After a failure, rows of known voices may have joined.
            waiting = [row for row in waiting if row not in loop.rows]
            assert all(lane.state.active == len(lane.rows) for lane in loop.lanes)
        if loop.rows and data.draw(st.integers(0, 9)) == 0:
            row = data.draw(st.sampled_from(loop.rows))
            loop.leave(row)
            left.add(row.number)
        numbers = [row.number for row in loop.rows]
        chosen = data.draw(st.sets(st.sampled_from(numbers))) if numbers else set()
        for patch in loop.step(chosen):
            assert patch.request in chosen
            made[patch.request].append(patch.latents)
            if patch.ending is not None:
                assert patch.ending == alone[patch.request].ending
                assert len(made[patch.request]) == len(alone[patch.request].patches)
    for number, patches in enumerate(made):
        if patches:
            assert_close(torch.stack(patches), alone[number].patches[: len(patches)], 1e-5)
        assert number in left or len(patches) == len(alone[number].patches)


def test_two_threads_that_share_the_rows_change_nothing() -> None:
    model, threads = tiny_model(), torch.get_num_threads()
    requests = [
        GenerationRequest(make_layout(n, 3 + n), seed=n, max_len=4, solver=Solver(3 + n % 2)) for n in range(17)
    ]
    alone = [generate_patches(model, [request])[0] for request in requests]
    try:
        torch.set_num_threads(2)
        workers = row_workers(model.device)
        loop = GenerationLoop(model, make_lanes(model, {64: 17}))
        assert torch.get_num_threads() == 2
        loop.join([admit(model.config, number, request) for number, request in enumerate(requests)])
        made: list[list[Tensor]] = [[] for _ in requests]
        while loop.rows:
            for patch in loop.step(workers=workers):
                made[patch.request].append(patch.latents)
    finally:
        torch.set_num_threads(threads)
    for patches, one in zip(made, alone, strict=True):
        assert_close(torch.stack(patches), one.patches, 1e-5)


def test_a_row_that_is_not_finite_fails_alone_and_leaves_a_clean_slot() -> None:
    model = tiny_model()
    nan = torch.full((P, D), torch.nan)
    good = GenerationRequest(make_layout(1), seed=1, max_len=6, solver=Solver(3))
    bad = GenerationRequest(
        make_layout(2), max_len=6, noise=lambda i: nan if i == 2 else torch.zeros(P, D), solver=Solver(3)
    )
    first, failed, second = generate_patches(model, [good, bad, good], max_batch=2)
    assert failed.ending == "failed" and len(failed.patches) == 2 and bool(failed.patches.isfinite().all())
    (alone,) = generate_patches(model, [good])
    for generation in (first, second):
        assert generation.ending != "failed"
        assert_close(generation.patches, alone.patches, 1e-5)
    # A NaN in a slot's cache does not reach the request that gets the slot, although it reads past what it has filled.
    loop = GenerationLoop(model, make_lanes(model, {40: 1}))
    row = admit(model.config, 0, bad)
    loop.join([row])
    state = loop.lanes[0].state
    for cache in (state.tslm, state.ralm):
        cache.k.fill_(torch.nan)
        cache.v.fill_(torch.nan)
    loop.leave(row, clean=True)
    assert bool(state.tslm.v.isfinite().all()) and bool(state.ralm.k.isfinite().all())


def test_retries_are_refilled_in_the_same_run() -> None:
    model = tiny_model()
    requests = [GenerationRequest(make_layout(i), seed=10 * i, max_len=4, solver=Solver(2)) for i in range(5)]
    asked: list[tuple[int, int, int]] = []

    def retry(number: int, made: object) -> GenerationRequest | None:
        generation = made
        assert hasattr(generation, "attempts") and hasattr(generation, "seed")
        asked.append((number, generation.attempts, generation.seed))
        if number % 2 or generation.attempts == 3:
            return None
        return GenerationRequest(make_layout(number), seed=generation.seed + 1, max_len=4, solver=Solver(2))

    made = generate_patches(model, requests, max_batch=2, retry=retry)
    assert [(g.attempts, g.seed) for g in made] == [(3, 2), (1, 10), (3, 22), (1, 30), (3, 42)]
    (alone,) = generate_patches(model, [GenerationRequest(make_layout(2), seed=22, max_len=4, solver=Solver(2))])
    assert_close(made[2].patches, alone.patches, 1e-5)


def test_a_voice_is_processed_once() -> None:
    model = tiny_model()
    prefixes = PrefixCache()
    loop = GenerationLoop(model, make_lanes(model, {48: 4}), prefixes)
    rows = [admit(model.config, n, GenerationRequest(voiced(n, text, 1), max_len=3)) for n, text in enumerate((3, 6))]
    heard: list[int] = []
    model.feat_encoder.register_forward_hook(lambda _module, _given, out: heard.append(len(out)))
    loop.join(rows[:1])
    assert heard == [3] and len(prefixes) == 1
    loop.join(rows[1:])
    assert heard[1:] in ([], [1]) and prefixes.hits == 1  # a text without audio is at most one empty row
    whole = DecodeState.allocate(model.config, 1, 48, torch.float32, "cpu")
    with torch.no_grad():
        model.prefill([rows[1].request.layout], whole)
    slot = loop.lanes[0].rows.index(rows[1])
    assert_close(loop.lanes[0].state.lm_hidden[slot], whole.lm_hidden[0], 1e-5)
    assert_close(loop.lanes[0].state.residual_hidden[slot], whole.residual_hidden[0], 1e-5)


def test_the_cache_of_voices_has_a_limit_and_refuses_nan() -> None:
    model = tiny_model()
    state = DecodeState.allocate(model.config, 1, 48, torch.float32, "cpu")
    layouts = [make_layout(i, reference=4) for i in range(4)]
    with torch.no_grad():
        model.prefill(layouts[:1], state)
    probe = PrefixCache()
    probe.keep(layouts[0], state, 0)
    prefixes = PrefixCache(most_bytes=2 * probe.nbytes)
    for layout in layouts[:3]:
        prefixes.keep(layout, state, 0)
    assert len(prefixes) == 2 and prefixes.nbytes <= 2 * probe.nbytes
    assert [prefixes.knows(layout) for layout in layouts[:3]] == [False, True, True]
    assert not prefixes.knows(make_layout(5))
    state.tslm.k[:, 0, :, 1] = torch.nan
    prefixes.keep(layouts[3], state, 0)
    assert not prefixes.knows(layouts[3])


def test_a_known_voice_is_used_before_new_ones_push_it_out() -> None:
    model = tiny_model()
    probe = PrefixCache()
    loop = GenerationLoop(model, make_lanes(model, {48: 6}), probe)
    loop.join([admit(model.config, 0, GenerationRequest(voiced(0, 4, 0), max_len=2))])
    prefixes = PrefixCache(most_bytes=2 * probe.nbytes)
    loop = GenerationLoop(model, make_lanes(model, {48: 6}), prefixes)
    first = [GenerationRequest(voiced(n, 4, n), max_len=2) for n in range(2)]
    loop.join([admit(model.config, n, request) for n, request in enumerate(first)])
    again = [GenerationRequest(voiced(9, 4, n), max_len=2) for n in (5, 6, 0)]
    joined = loop.join([admit(model.config, 10 + n, request) for n, request in enumerate(again)])
    assert len(joined) == 3 and prefixes.hits == 1
    for row in joined:
        whole = DecodeState.allocate(model.config, 1, 48, torch.float32, "cpu")
        with torch.no_grad():
            model.prefill([row.request.layout], whole)
        slot = loop.lanes[0].rows.index(row)
        assert_close(loop.lanes[0].state.lm_hidden[slot], whole.lm_hidden[0], 1e-5)


def test_a_request_that_fits_no_lane_waits_and_one_without_a_slot_cannot_leave() -> None:
    model = tiny_model()
    loop = GenerationLoop(model, make_lanes(model, {16: 1}))
    long = admit(model.config, 0, GenerationRequest(make_layout(0, text=20), max_len=5))
    assert loop.lane_for(long) is None and loop.join([long]) == []
    with pytest.raises(ValueError, match="no slot"):
        loop.leave(long)
    assert loop.step() == []


def test_a_prefill_that_fails_leaves_no_slot_taken_in_any_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    loop = GenerationLoop(model, make_lanes(model, {16: 2, 48: 2}))
    requests = [GenerationRequest(make_layout(n, text), n, min_len=2, max_len=2) for n, text in ((0, 3), (1, 30))]
    rows = [admit(model.config, number, request) for number, request in enumerate(requests)]
    prefill, calls = model.prefill, []

    def first_fails(layouts: list[Layout], state: DecodeState) -> None:
        calls.append(len(layouts))
        if len(calls) == 1:
            raise MemoryError("no room")
        prefill(layouts, state)

    monkeypatch.setattr(model, "prefill", first_fails)
    with pytest.raises(MemoryError):
        loop.join(rows)
    assert loop.rows == [] and [lane.free for lane in loop.lanes] == [2, 2]
    assert loop.join(rows) == rows
    assert {patch.request for patch in loop.step()} == {0, 1}
