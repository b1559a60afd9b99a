"""What is heard of the past in training: with noise or not at all, references exactly, what is to be said exactly."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parent.parent / "voxcpm"))
from tiny_voxcpm import tiny_model

from trainer.data.history_noise import noise_history
from voxcpm.sequence.training_batch import TrainingBatch, TrainingNoise
from voxcpm.sequence.training_rows import Sample, lay_out_sample, pack_rows

SEEDS = {(0, 0): 11, (0, 1): 12, (1, 0): 13}


def samples() -> list[Sample]:
    """Three: with a reference of two patches, without one, and with one of three."""
    config = tiny_model().config
    numbers = torch.Generator().manual_seed(0)

    def patches(count: int) -> torch.Tensor:
        return torch.randn(count, config.patch_size, config.feat_dim, generator=numbers)

    return [
        lay_out_sample([7, 8], patches(4), patches(2)),
        lay_out_sample([9], patches(3)),
        lay_out_sample([5, 6], patches(5), patches(3)),
    ]


@pytest.fixture
def batch() -> TrainingBatch:
    first, second, third = samples()
    return pack_rows([[first, second], [third]])


def test_noise_is_on_the_past_alone(batch: TrainingBatch) -> None:
    blurred = noise_history(batch, SEEDS, noise=2.0)
    assert blurred.heard is not None
    learnt = batch.loss_mask.bool()
    assert torch.equal(blurred.heard[~learnt], batch.features[~learnt])
    assert ((blurred.heard - batch.features)[learnt].abs().mean(dim=(1, 2)) > 1e-3).all()
    assert torch.equal(blurred.features, batch.features)


def test_a_document_that_is_dropped_hears_its_reference_and_nothing_of_its_past(batch: TrainingBatch) -> None:
    blurred = noise_history(batch, SEEDS, drop=1.0)
    assert blurred.heard is not None
    learnt = batch.loss_mask.bool()
    assert not blurred.heard[learnt].any()
    given = batch.audio_mask.bool() & ~learnt
    assert given.sum() == 5
    assert torch.equal(blurred.heard[given], batch.features[given])


def test_the_share_that_is_dropped(batch: TrainingBatch) -> None:
    dropped = 0
    for seed in range(300):
        heard = noise_history(batch, {(0, 0): seed}, noise=1.0, drop=0.3).heard
        assert heard is not None
        learnt = batch.loss_mask.bool()[0] & (batch.document_ids[0] == 0)  # type: ignore[index]
        dropped += not heard[0, learnt].any()
    assert 65 <= dropped <= 115  # 90 and three standard deviations


def test_the_numbers_belong_to_the_document_not_to_its_place(batch: TrainingBatch) -> None:
    first, second, third = samples()
    one = noise_history(batch, SEEDS, noise=1.0, drop=0.4)
    other = noise_history(
        pack_rows([[second], [third, first]]), {(0, 0): 12, (1, 0): 13, (1, 1): 11}, noise=1.0, drop=0.4
    )
    assert one.heard is not None and other.heard is not None
    assert torch.equal(one.heard[0, first.length :][: second.length], other.heard[0, : second.length])
    assert torch.equal(one.heard[0, : first.length], other.heard[1, third.length :][: first.length])


def test_predictions_follow_what_is_heard_and_targets_do_not(batch: TrainingBatch) -> None:
    model = tiny_model()
    noise = TrainingNoise.draw(tuple(batch.loss_mask.shape), tuple(batch.features.shape[2:]), torch.Generator())  # type: ignore[arg-type]
    exact = model.training_losses(batch, noise)
    assert torch.equal(
        exact.diffusion, model.training_losses(replace(batch, heard=batch.features.clone()), noise).diffusion
    )
    dropped = noise_history(batch, SEEDS, drop=1.0)
    deaf = model.training_losses(dropped, noise)
    assert torch.isfinite(deaf.diffusion) and not torch.equal(exact.diffusion, deaf.diffusion)
    # A model that hears nothing of its past cannot tell two pasts apart: only a patch's own target counts.
    changed = dropped.features.clone()
    places = dropped.loss_mask.bool()[0].nonzero().squeeze(1)
    changed[0, places[0]] += 1.0
    moved = model.training_losses(replace(dropped, features=changed), noise).diffusion_per_position
    assert moved[0] != deaf.diffusion_per_position[0]
    assert torch.equal(moved[1:], deaf.diffusion_per_position[1:])
