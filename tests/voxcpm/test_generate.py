"""Generation: batches, seeds, stops, limits, and that no work is done which cannot matter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_closeness import assert_close
from tiny_voxcpm import tiny_model

from voxcpm.engine.batch import generate_patches, stream_patches
from voxcpm.engine.request import GenerationRequest, patch_noise
from voxcpm.model.backbone import VoxCPM2
from voxcpm.model.decode_state import DecodeState
from voxcpm.model.flow import Solver
from voxcpm.sequence.prompt_layout import Layout

P, D = 2, 6


def make_layout(seed: int, text: int = 5, reference: int = 0, prompt: int = 0) -> Layout:
    g = torch.Generator().manual_seed(seed)
    head = [103, *[0] * reference, 104] if reference else []
    ids = [*head, *torch.randint(3, 100, (text,), generator=g).tolist(), 101, *[0] * prompt]
    audio = [False] + [True] * reference + [False] if reference else []
    audio += [False] * (text + 1) + [True] * prompt
    patches = torch.randn(reference + prompt, P, D, generator=g)
    return Layout(torch.tensor(ids), torch.tensor(audio), patches, text, prompt)


REQUESTS = st.lists(
    st.builds(
        lambda seed, text, reference, prompt, cfg, most, steps: GenerationRequest(
            make_layout(seed, text, reference, prompt), seed=seed, cfg=cfg, min_len=1, max_len=most, solver=Solver(steps)
        ),
        st.integers(0, 99), st.integers(1, 8), st.integers(0, 3), st.integers(0, 3), st.sampled_from([1.0, 1.5, 2.0]),
        st.integers(1, 9), st.sampled_from([4, 4, 6]),
    ),
    min_size=2, max_size=8,
)  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(requests=REQUESTS)
def test_a_batch_equals_singles(requests: list[GenerationRequest]) -> None:
    model = tiny_model()
    # Some weights that make both stopping and going on happen.
    with torch.no_grad():
        model.stop_head.weight.mul_(30)
    together = generate_patches(model, requests)
    for request, generation in zip(requests, together, strict=True):
        (alone,) = generate_patches(model, [request])
        assert (alone.ending, len(alone.patches), alone.seed) == (
            generation.ending,
            len(generation.patches),
            request.seed,
        )
        assert_close(generation.patches, alone.patches, 1e-5)
    split = generate_patches(model, requests, max_batch=3)
    for a, b in zip(split, together, strict=True):
        assert_close(a.patches, b.patches, 1e-5)


def test_golden_batch_of_eight(golden_backbone: VoxCPM2) -> None:
    """The same on the golden checkpoint, whose head sizes are the published kind."""
    config = golden_backbone.config
    g = torch.Generator().manual_seed(0)
    requests = []
    for i in range(8):
        ids = torch.cat((torch.randint(105, config.lm_config.vocab_size, (4 + i,), generator=g), torch.tensor([101])))
        none = torch.zeros(0, config.patch_size, config.feat_dim)
        layout = Layout(ids, torch.zeros(len(ids), dtype=torch.bool), none, 4 + i, 0)
        requests.append(GenerationRequest(layout, seed=i, cfg=[1.0, 2.0][i % 2], max_len=4 + i))
    for request, generation in zip(requests, generate_patches(golden_backbone, requests), strict=True):
        (alone,) = generate_patches(golden_backbone, [request])
        assert_close(generation.patches, alone.patches, 1e-5)


def never_stop(model: VoxCPM2) -> VoxCPM2:
    with torch.no_grad():
        model.stop_head.weight.zero_()
    return model


def always_stop(model: VoxCPM2) -> VoxCPM2:
    """A model whose stop logits are (-x, x) with x > 0: class 1 always wins."""
    with torch.no_grad():
        model.stop_proj.weight.zero_()
        model.stop_proj.bias.fill_(2.0)
        model.stop_head.weight[0].fill_(-1.0)
        model.stop_head.weight[1].fill_(1.0)
    return model


@pytest.mark.parametrize(("min_len", "patches"), [(0, 2), (2, 4), (5, 7)])
def test_a_stop_is_obeyed_after_min_len(min_len: int, patches: int) -> None:
    """`i > min_len` with i from 0, judged after patch i, which is kept: min_len 2 gives 4 patches."""
    (generation,) = generate_patches(always_stop(tiny_model()), [GenerationRequest(make_layout(0), min_len=min_len)])
    assert (len(generation.patches), generation.ending) == (patches, "stop")


def test_the_limit_from_the_text() -> None:
    model = never_stop(tiny_model())
    layout = make_layout(0, text=2)
    (generation,) = generate_patches(model, [GenerationRequest(layout, ratio_threshold=1.5, solver=Solver(2))])
    assert (len(generation.patches), generation.ending) == (int(2 * 1.5 + 10), "max_len")


def test_a_full_context_ends_a_generation_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    model = never_stop(tiny_model(max_length=20))
    layout = make_layout(0, text=9)
    (generation,) = generate_patches(model, [GenerationRequest(layout, ratio_threshold=None, solver=Solver(2))])
    assert generation.ending == "context" and len(generation.patches) == 20 - 10 + 1
    assert "context" in caplog.text
    with pytest.raises(ValueError, match="no room to speak"):
        generate_patches(model, [GenerationRequest(make_layout(0, text=19))])


def test_noise_depends_on_seed_and_index_only() -> None:
    seen = {tuple(patch_noise(seed, i, P, D).flatten().tolist()) for seed in range(20) for i in range(20)}
    assert len(seen) == 400
    assert torch.equal(patch_noise(3, 4, P, D), patch_noise(3, 4, P, D))
    many = torch.stack([patch_noise(2**40 + 1, i, 4, 64) for i in range(200)])
    assert abs(float(many.mean())) < 0.02 and abs(float(many.std()) - 1) < 0.02
    neighbors = torch.stack([patch_noise(s, 0, 4, 64).flatten() for s in range(100)])
    correlation = torch.corrcoef(neighbors) - torch.eye(100)
    assert float(correlation.abs().max()) < 0.35


class Count:
    """Counts rows given to a module."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.rows: list[tuple[int, ...]] = []
        self.handle = module.register_forward_hook(self.note)

    def note(self, module: torch.nn.Module, given: tuple[Any, ...], out: torch.Tensor) -> None:
        self.rows.append(tuple(out.shape[:-1]))


def test_no_wasted_work() -> None:
    model = never_stop(tiny_model())
    local, dit = Count(model.feat_encoder), Count(model.feat_decoder.estimator.decoder)
    last_encoder = Count(model.feat_encoder.encoder.get_submodule("layers.1.mlp"))
    last_dit = Count(model.feat_decoder.estimator.decoder.get_submodule("layers.1.mlp"))
    times, conditions = Count(model.feat_decoder.estimator.time_mlp), Count(model.feat_decoder.estimator.cond_proj)
    layout = make_layout(0, text=6, reference=3)
    generate_patches(model, [GenerationRequest(layout, max_len=2, cfg=1.0)])
    # Prefill: the three reference patches only; then one patch (the last one is never read back).
    assert local.rows == [(3,), (1,)]
    assert {rows[1] for rows in last_encoder.rows} == {1}
    # Guidance 1: one row; ten steps less the zero-init one; the last block computes the P noisy frames only.
    assert len(dit.rows) == 2 * 9 and {rows[0] for rows in dit.rows} == {1}
    assert {rows[1] for rows in last_dit.rows} == {P}
    assert times.rows == [(9,)] * 2 and len(conditions.rows) == 2
    dit.rows.clear()
    mixed = [GenerationRequest(layout, max_len=1, cfg=cfg) for cfg in (1.0, 2.0, 1.0)]
    generate_patches(model, mixed)
    assert {rows[0] for rows in dit.rows} == {4}


def test_slots_are_released_and_reused() -> None:
    model = tiny_model()
    layouts = [make_layout(i, text=3 + i) for i in range(3)]
    state = DecodeState.allocate(model.config, 3, 40, torch.float32, "cpu")
    with torch.no_grad():
        model.prefill(layouts, state)
        hidden = state.lm_hidden[2].clone()
        state.release(0)
        assert state.active == 2 and torch.equal(state.lm_hidden[0], hidden)
        assert state.lengths == [layouts[2].length, layouts[1].length]
        model.prefill([layouts[0]], state)
        patches = torch.randn(3, P, D)
        model.advance(state, patches)
        for slot, which in enumerate((2, 1, 0)):
            alone = DecodeState.allocate(model.config, 1, 40, torch.float32, "cpu")
            model.prefill([layouts[which]], alone)
            model.advance(alone, patches[slot : slot + 1])
            assert_close(state.lm_hidden[slot], alone.lm_hidden[0], 1e-5)
            assert_close(state.residual_hidden[slot], alone.residual_hidden[0], 1e-5)
        with pytest.raises(ValueError, match="do not fit"):
            model.prefill(layouts, state)
    with pytest.raises(ValueError, match="context"):
        DecodeState.allocate(model.config, 1, 10_000, torch.float32, "cpu")


def test_training_and_generation_agree() -> None:
    """What the training pass computes at a position is what decoding step by step computes there."""
    model = tiny_model()
    layout = make_layout(1, text=4, reference=2)
    patches = torch.randn(3, P, D)
    audio = torch.cat((layout.audio_mask, torch.ones(3, dtype=torch.bool)))[None]
    tokens = torch.cat((layout.text_tokens, torch.zeros(3, dtype=torch.int64)))[None]
    from voxcpm.model.attention import CAUSAL

    with torch.no_grad():
        h, r = model.hidden_states(tokens, ~audio, audio, torch.cat((layout.patches, patches)), CAUSAL)
        state = DecodeState.allocate(model.config, 1, 40, torch.float32, "cpu")
        model.prefill([layout], state)
        for i, patch in enumerate(patches):
            assert_close(state.lm_hidden[0], h[0, layout.length - 1 + i], 1e-5)
            assert_close(state.residual_hidden[0], r[0, layout.length - 1 + i], 1e-5)
            model.advance(state, patch[None])
        assert_close(state.lm_hidden[0], h[0, -1], 1e-5)


def test_patches_come_in_order() -> None:
    model = never_stop(tiny_model())
    requests = [
        GenerationRequest(make_layout(i), max_len=most, solver=Solver(2)) for i, most in enumerate((1, 4, 2, 3))
    ]
    seen: dict[int, list[int]] = {}
    for step in stream_patches(model, requests):
        assert [p.request for p in step] == sorted(p.request for p in step)
        for patch in step:
            seen.setdefault(patch.request, []).append(patch.index)
    assert seen == {0: [0], 1: [0, 1, 2, 3], 2: [0, 1], 3: [0, 1, 2]}
