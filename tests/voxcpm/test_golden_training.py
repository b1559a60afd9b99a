"""Losses and gradients of a training step against the reference's (losses 1e-4, gradient norms 1e-3, relative)."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from tensor_closeness import assert_close
from voxcpm_fixtures import GoldenSet

from voxcpm.model.backbone import VoxCPM2
from voxcpm.sequence.training_batch import Losses, TrainingBatch, TrainingNoise
from voxcpm.weights.lora import adapters, load_lora


@pytest.fixture
def batch(golden_set: GoldenSet) -> TrainingBatch:
    stored = golden_set["training"]
    return TrainingBatch(
        text_tokens=stored["packed.text_tokens"],
        text_mask=stored["packed.text_mask"],
        audio_mask=stored["packed.audio_mask"],
        features=stored["packed.audio_feats"],
        loss_mask=stored["packed.loss_mask"],
        stop_labels=stored["packed.labels"],
        position_ids=stored["packed.position_ids"],
    )


@pytest.fixture
def noise(golden_set: GoldenSet, batch: TrainingBatch) -> TrainingNoise:
    stored, shape = golden_set["training"], batch.text_tokens.shape

    def field(name: str) -> torch.Tensor:
        value = stored[f"train.rng.{name}"]
        value = value.transpose(1, 2) if value.dim() == 3 else value
        return value.reshape(*shape, *value.shape[1:])

    return TrainingNoise(
        cfg_keep_uniform=field("cfg_keep_uniform"),
        t_draw=field("t_draw"),
        z_normal=field("z_normal"),
        cond_noise_uniform=field("cond_noise_uniform"),
        cond_noise_normal=field("cond_noise_normal"),
        r_draw=field("r_draw"),
        rt_mask_uniform=field("rt_mask_uniform"),
    )


def assert_relative(got: float, wanted: float, tolerance: float, name: str = "") -> None:
    assert abs(got - wanted) <= tolerance * max(abs(wanted), 1e-6), f"{name}: {got:.8g}, golden {wanted:.8g}"


def norm_of_gradient(parameter: torch.nn.Parameter) -> float:
    assert parameter.grad is not None
    return parameter.grad.norm().item()


def assert_losses(losses: Losses, golden_set: GoldenSet, prefix: str) -> None:
    stored = golden_set["training"]
    assert_relative(losses.diffusion.item(), stored[f"{prefix}.loss_diff"].item(), 1e-4, f"{prefix} diffusion")
    assert_relative(losses.stop.item(), stored[f"{prefix}.loss_stop"].item(), 1e-4, f"{prefix} stop")


def test_losses_and_gradients(
    golden_set: GoldenSet, fresh_backbone: VoxCPM2, batch: TrainingBatch, noise: TrainingNoise
) -> None:
    losses = fresh_backbone.training_losses(batch, noise)
    assert_losses(losses, golden_set, "train")
    for got, wanted in zip((losses.diffusion, losses.stop), golden_set.meta["train_loss"], strict=True):
        assert_relative(got.item(), wanted, 1e-4)
    (losses.diffusion + losses.stop).backward()
    parameters = dict(fresh_backbone.named_parameters())
    norms = golden_set.meta["train_grad_norms"]
    without = set(golden_set.meta["train_params_without_grad"])
    assert norms.keys() | without == parameters.keys()
    for name, wanted in norms.items():
        assert_relative(norm_of_gradient(parameters[name]), wanted, 1e-3, name)
    total = torch.stack([p.grad.norm() for p in parameters.values() if p.grad is not None]).norm().item()
    assert_relative(total, golden_set.meta["train_grad_norm_total"], 1e-3)
    stored = golden_set["training"]
    # The stored gradients are those after the clipping to norm 1 that preceded the optimizer step.
    torch.nn.utils.clip_grad_norm_(fresh_backbone.parameters(), 1.0)
    for key in [k for k in stored if k.startswith("train.grad.")]:
        gradient = parameters[key.removeprefix("train.grad.")].grad
        assert gradient is not None
        assert_close(gradient, stored[key], 1e-4)


def test_packed_into_one_row_it_is_the_same(
    golden_set: GoldenSet, fresh_backbone: VoxCPM2, batch: TrainingBatch, noise: TrainingNoise
) -> None:
    """The padded batch's documents one after the other in one row, each with the random numbers it had: losses, and every
    gradient's norm, to 1e-4."""
    lengths = [
        int((text | audio).nonzero().max()) + 1
        for text, audio in zip(batch.text_mask.bool(), batch.audio_mask.bool(), strict=True)
    ]
    assert len(set(lengths)) == len(lengths) == 3, "padding goes away"

    def packed(value: torch.Tensor | None) -> torch.Tensor | None:
        return None if value is None else torch.cat([row[:n] for row, n in zip(value, lengths, strict=True)])[None]

    def each(values: TrainingBatch | TrainingNoise) -> dict[str, Any]:
        return {field.name: packed(getattr(values, field.name)) for field in fields(values)}

    documents = torch.cat([torch.full((n,), i) for i, n in enumerate(lengths)])[None]
    row = TrainingBatch(**each(batch) | {"document_ids": documents})
    losses = fresh_backbone.training_losses(row, TrainingNoise(**each(noise)))
    assert row.text_tokens.shape == (1, sum(lengths))
    assert_losses(losses, golden_set, "train")
    (losses.diffusion + losses.stop).backward()
    parameters = dict(fresh_backbone.named_parameters())
    for name, wanted in golden_set.meta["train_grad_norms"].items():
        assert_relative(norm_of_gradient(parameters[name]), wanted, 1e-4, name)


def test_losses_after_one_step(
    golden_set: GoldenSet, fresh_backbone: VoxCPM2, batch: TrainingBatch, noise: TrainingNoise
) -> None:
    optimizer = torch.optim.AdamW(fresh_backbone.parameters(), lr=1e-3, weight_decay=0.01)
    losses = fresh_backbone.training_losses(batch, noise)
    (losses.diffusion + losses.stop).backward()
    before = torch.nn.utils.clip_grad_norm_(fresh_backbone.parameters(), 1.0)
    assert_relative(before.item(), golden_set.meta["grad_norm_clip_1.0_before"], 1e-3)
    optimizer.step()
    losses = fresh_backbone.training_losses(batch, noise)
    assert_losses(losses, golden_set, "train_after_step")
    for got, wanted in zip(
        (losses.diffusion, losses.stop), golden_set.meta["train_loss_after_one_adamw_step"], strict=True
    ):
        assert_relative(got.item(), wanted, 1e-4)


def test_losses_halfway_through_training(
    golden_set: GoldenSet, golden_backbone: VoxCPM2, batch: TrainingBatch, noise: TrainingNoise
) -> None:
    with torch.no_grad():
        assert_losses(golden_backbone.training_losses(batch, noise, progress=0.5), golden_set, "train_progress0.5")


def test_lora_losses_and_gradients(
    golden_set: GoldenSet, fresh_backbone: VoxCPM2, batch: TrainingBatch, noise: TrainingNoise
) -> None:
    load_lora(fresh_backbone, golden_set.folder / "lora")
    fresh_backbone.requires_grad_(False)
    for adapted in adapters(fresh_backbone).values():
        adapted.lora_A.requires_grad_(True)
        adapted.lora_B.requires_grad_(True)
    trainable = {name: p for name, p in fresh_backbone.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trainable.values()) == golden_set.meta["lora_trainable"]
    losses = fresh_backbone.training_losses(batch, noise)
    assert_losses(losses, golden_set, "lora")
    (losses.diffusion + losses.stop).backward()
    norms = golden_set.meta["lora_grad_norms"]
    assert norms.keys() == trainable.keys()
    for name, wanted in norms.items():
        assert_relative(norm_of_gradient(trainable[name]), wanted, 1e-3, name)


def test_what_is_not_a_loss_position_does_not_matter(
    golden_set: GoldenSet, golden_backbone: VoxCPM2, batch: TrainingBatch, noise: TrainingNoise
) -> None:
    """Features at text positions and padding, and random numbers off the loss positions, are never read."""
    silent = ~batch.audio_mask.bool()
    spoilt = replace(batch, features=batch.features.masked_fill(silent[..., None, None], float("nan")))
    unlearnt = ~batch.loss_mask.bool()
    z = noise.z_normal.masked_fill(unlearnt[..., None, None], float("nan"))
    with torch.no_grad():
        assert_losses(golden_backbone.training_losses(spoilt, replace(noise, z_normal=z)), golden_set, "train")
