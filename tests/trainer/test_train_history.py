"""Noise on the past: on what the model is to say itself, not on references, and only while it is trained."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parent.parent / "voxcpm"))
from tiny_voxcpm import tiny_model

from trainer.history import add_history_noise
from voxcpm.training import TrainingBatch


def test_targets_are_heard_with_noise_and_references_exactly() -> None:
    model = tiny_model()
    shape = (1, 8, model.config.patch_size, model.config.feat_dim)
    audio = torch.tensor([[False, True, True, False, False, True, True, True]])
    loss = torch.tensor([[False, False, False, False, False, True, True, True]])
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * audio[..., None, None]
    batch = TrainingBatch(
        torch.full((1, 8), 7), ~audio, audio, features, loss, torch.zeros(1, 8, dtype=torch.long), torch.arange(8)[None]
    )
    add_history_noise(model, 2.0)
    heard: list[torch.Tensor] = []
    model.feat_encoder.register_forward_pre_hook(lambda module, inputs: heard.append(inputs[0].clone()))
    torch.manual_seed(1)
    losses = model.train().training_losses(batch, torch.Generator().manual_seed(2))
    model.eval().training_losses(batch, torch.Generator().manual_seed(2))
    given = features[audio]
    assert torch.equal(heard[0][:2], given[:2])
    assert ((heard[0][2:] - given[2:]).abs().mean(dim=(1, 2)) > 0.01).all()
    assert torch.equal(heard[1], given), "what is spoken is heard as it is"
    assert torch.isfinite(losses.diffusion)
