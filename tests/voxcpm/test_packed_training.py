"""Packed rows: the losses and gradients of documents in one row are the sums of those of the documents alone."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_closeness import assert_close
from tiny_voxcpm import tiny_model

from voxcpm.model.attention import _IS_CAUSAL, _SHARES_HEADS, CAUSAL, Reach, attend
from voxcpm.model.backbone import VoxCPM2
from voxcpm.sequence.training_batch import BatchIndex, Losses, TrainingBatch, TrainingNoise
from voxcpm.sequence.training_rows import Sample, lay_out_sample, pack_rows

PATCH = (2, 6)


def make_sample(seed: int, text: int = 4, patches: int = 3, reference: int = 0, prompt_only: bool = False) -> Sample:
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 100, (text,), generator=g).tolist()
    clip = torch.randn(reference, *PATCH, generator=g) if reference else None
    return lay_out_sample(ids, torch.randn(patches, *PATCH, generator=g), clip, prompt_only)


def run(model: VoxCPM2, rows: list[list[Sample]], names: list[list[int]], length: int | None = None) -> Losses:
    """Losses with noise that belongs to the samples (`names`), wherever they stand."""
    batch = pack_rows(rows, length)
    seeds = {(i, j): name for i, row in enumerate(names) for j, name in enumerate(row)}
    assert batch.document_ids is not None
    return model.training_losses(batch, TrainingNoise.for_documents(batch.document_ids, seeds, PATCH))


def gradients(model: VoxCPM2, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


SHAPES = st.lists(
    st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(0, 3), st.booleans()), min_size=2, max_size=5
)


@settings(max_examples=12, deadline=None)
@given(shapes=SHAPES, mup=st.booleans(), rope=st.booleans())
def test_packed_is_the_sum_of_singles(shapes: list[tuple[int, int, int, bool]], mup: bool, rope: bool) -> None:
    model = tiny_model(lm_config__use_mup=mup, residual_lm_no_rope=not rope)
    samples = [
        make_sample(i, text, patches, 0 if prompt else reference, prompt)
        for i, (text, patches, reference, prompt) in enumerate(shapes)
    ]
    alone = [run(model, [[sample]], [[i]]) for i, sample in enumerate(samples)]
    half = len(samples) // 2
    names = [list(range(half)), list(range(half, len(samples)))]
    rows = [[samples[i] for i in row] for row in names]
    together = run(model, rows, names)
    assert together.diffusion_count == sum(one.diffusion_count for one in alone)
    assert together.stop_count == sum(one.stop_count for one in alone)
    for part in ("diffusion_sum", "stop_sum"):
        total = sum((getattr(one, part) for one in alone), torch.tensor(0.0))
        assert_close(getattr(together, part), total, 1e-4)
    wanted = gradients(model, sum((one.diffusion_sum + one.stop_sum for one in alone), torch.tensor(0.0)))
    got = gradients(model, together.diffusion_sum + together.stop_sum)
    assert wanted.keys() == got.keys()
    for name, gradient in wanted.items():
        assert_close(got[name], gradient, 1e-3 * max(1.0, float(gradient.abs().max())))


def test_nothing_leaks_over_a_border() -> None:
    model = tiny_model()
    first, second = make_sample(1), make_sample(2, reference=2)
    other = replace(first, patches=first.patches + 5.0, text_tokens=first.text_tokens + 7)
    n = int(first.loss_mask.sum())
    before = run(model, [[first, second]], [[1, 2]])
    after = run(model, [[other, second]], [[1, 2]])
    assert torch.equal(before.diffusion_per_position[n:], after.diffusion_per_position[n:])
    assert torch.equal(before.stop_logits[n:], after.stop_logits[n:])
    assert not torch.equal(before.diffusion_per_position[:n], after.diffusion_per_position[:n])


def test_padding_changes_nothing() -> None:
    model = tiny_model()
    rows = [[make_sample(1)], [make_sample(2, text=7, reference=2)]]
    short, long = run(model, rows, [[1], [2]]), run(model, rows, [[1], [2]], length=60)
    assert_close(short.diffusion, long.diffusion, 1e-6)
    assert_close(short.stop, long.stop, 1e-6)


@pytest.mark.parametrize("multiple", [1, 8, 64])
def test_padding_of_the_patch_batches_changes_nothing(multiple: int) -> None:
    model = tiny_model()
    plain = run(model, [[make_sample(1), make_sample(2, reference=3)]], [[1, 2]])
    wanted = gradients(model, plain.diffusion + plain.stop)
    model.row_multiple = multiple
    padded = run(model, [[make_sample(1), make_sample(2, reference=3)]], [[1, 2]])
    got = gradients(model, padded.diffusion + padded.stop)
    assert_close(padded.diffusion, plain.diffusion, 1e-6)
    assert padded.diffusion_per_position.shape == plain.diffusion_per_position.shape
    for name, gradient in wanted.items():
        assert_close(got[name], gradient, 1e-4 * max(1.0, float(gradient.abs().max())))


def test_a_batch_without_anything_to_learn_still_reaches_every_parameter() -> None:
    """Otherwise one rank of several would wait for ever for the others' gradients."""
    model = tiny_model()
    losses = run(model, [[make_sample(1, prompt_only=True)]], [[1]])
    assert losses.diffusion.item() == losses.stop.item() == 0.0 and losses.stop_count == 0
    (losses.diffusion + losses.stop).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_mean_flow_training_by_forward_differentiation() -> None:
    """Mean mode: with r = t everywhere it is the plain loss; with r < t the target has the slope along the flow."""
    samples = [[make_sample(1), make_sample(2)]]
    plain = tiny_model()
    mean = tiny_model(dit_config__dit_mean_mode=True, dit_config__cfm_config={"ratio_r_neq_t_range": [0.0, 0.0]})
    mean.load_state_dict(plain.state_dict())
    assert_close(run(mean, samples, [[1, 2]]).diffusion, run(plain, samples, [[1, 2]]).diffusion, 1e-5)
    always = tiny_model(dit_config__dit_mean_mode=True, dit_config__cfm_config={"ratio_r_neq_t_range": [1.0, 1.0]})
    always.load_state_dict(plain.state_dict())
    losses = run(always, samples, [[1, 2]])
    losses.diffusion.backward()
    assert torch.isfinite(losses.diffusion) and always.feat_decoder.estimator.out_proj.weight.grad is not None


def test_noise_belongs_to_documents() -> None:
    ids = torch.tensor([[0, 0, 0, 1, 1, -1], [1, 1, 0, 0, 0, 0]])
    noise = TrainingNoise.for_documents(ids, {(0, 0): 5, (0, 1): 6, (1, 1): 6, (1, 0): 7}, PATCH)
    assert torch.equal(noise.z_normal[0, 3:5], noise.z_normal[1, 0:2])
    assert not noise.z_normal[0, 5].any()
    alone = TrainingNoise.draw((3,), PATCH, torch.Generator().manual_seed(5))
    assert torch.equal(noise.z_normal[0, :3], alone.z_normal) and torch.equal(noise.t_draw[0, :3], alone.t_draw)


def test_losses_need_no_noise_given() -> None:
    model = tiny_model()
    batch = pack_rows([[make_sample(1)]])
    seeded = [model.training_losses(batch, torch.Generator().manual_seed(3)).diffusion for _ in range(2)]
    assert torch.equal(*seeded)
    assert torch.isfinite(model.training_losses(batch).diffusion)


def test_document_attention_equals_a_mask() -> None:
    g = torch.Generator().manual_seed(0)
    ids = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 1, 1, 1, 1, -1, -1]])
    q, k, v = (torch.randn(2, heads, 8, 16, generator=g) for heads in (4, 2, 2))
    mask = (ids[:, :, None] == ids[:, None, :]) & torch.ones(8, 8, dtype=torch.bool).tril()
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None], enable_gqa=True)
    batch = replace(pack_rows([[make_sample(1)], [make_sample(2)]]), document_ids=ids)
    index = BatchIndex.of(batch)
    assert index.lengths == (3, 2, 3, 1, 5, 2) and index.offsets is not None
    assert index.offsets.tolist() == [0, 3, 5, 8, 9, 14, 16] and index.offsets.dtype == torch.int32
    assert_close(attend(q, k, v, Reach.packed(index.lengths, index.offsets)), wanted, 1e-5)
    one = Reach.packed([8], torch.tensor([0, 8]))
    assert_close(attend(q[:1], k[:1], v[:1], one), attend(q[:1], k[:1], v[:1], CAUSAL), 1e-5)


def test_a_forward_pass_asks_the_device_for_no_value() -> None:
    """On the meta device nothing has a value: whatever would wait for a GPU (`nonzero`, `item`, a boolean index) raises."""
    rows = [[make_sample(1), make_sample(2, reference=3)], [make_sample(3, prompt_only=True), make_sample(4)]]
    batch = pack_rows(rows)
    noise = TrainingNoise.draw(tuple(batch.loss_mask.shape), PATCH)
    with pytest.raises(NotImplementedError):
        tiny_model().to("meta").training_losses(replace(batch.to("meta"), index=None), noise.to("meta"))
    model = tiny_model()
    wanted = model.training_losses(batch, noise)
    given = model.training_losses(replace(batch, index=BatchIndex.of(batch)), noise)
    assert torch.equal(given.diffusion_per_position, wanted.diffusion_per_position)
    losses = model.to("meta").training_losses(batch.to("meta"), noise.to("meta"))
    assert losses.stop_count == wanted.stop_count and losses.stop_logits.shape == wanted.stop_logits.shape
    (losses.diffusion + losses.stop).backward()


def test_sample_layouts_are_checked() -> None:
    with pytest.raises(ValueError, match="at least one patch"):
        lay_out_sample([1], torch.zeros(0, *PATCH))
    with pytest.raises(ValueError, match="does not fit"):
        pack_rows([[make_sample(1)]], length=3)


def test_batches_move_and_keep_their_fields() -> None:
    batch = pack_rows([[make_sample(1)]])
    moved = batch.to("meta")
    assert (
        isinstance(moved, TrainingBatch)
        and moved.features.device.type == "meta"
        and moved.loss_mask.dtype == torch.bool
    )


def test_the_kernel_for_packed_rows_takes_what_its_version_of_torch_is_given() -> None:
    from torch.nn.attention.varlen import varlen_attn

    known = inspect.signature(varlen_attn).parameters
    assert set(_IS_CAUSAL) <= set(known)
    assert ("enable_gqa" in known) == _SHARES_HEADS
