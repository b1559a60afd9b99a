"""Noise on what a model has said so far, so that it learns to recover from its own mistakes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from voxcpm.model import VoxCPM2


def add_history_noise(model: VoxCPM2, scale: float) -> None:
    """While training, LocEnc hears every target patch with Gaussian noise of a standard deviation drawn evenly from [0, scale].

    Patches of the past are exact in training, while those a model speaks are its own: a small model follows the recording it
    has heard rather than the text and the reference, and is lost after its first mistake. References and given beginnings
    stay exact, as they are when it speaks, and so does what is to be predicted. The numbers come from torch's global
    generator, which the trainer seeds in every step.
    """
    heard: list[Tensor] = []

    def remember(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        batch = inputs[0]
        heard[:] = [batch.loss_mask.bool()[batch.audio_mask.bool()]]

    def disturb(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not module.training or not heard:
            return None
        patches: Tensor = inputs[0]
        targets = heard.pop()
        strength = scale * torch.rand(len(patches), 1, 1, device=patches.device, dtype=patches.dtype)
        strength[len(targets) :] = 0.0  # padding
        strength[: len(targets)] *= targets.view(-1, 1, 1)
        return (patches + strength * torch.randn_like(patches), *inputs[1:])

    model.register_forward_pre_hook(remember)
    model.feat_encoder.register_forward_pre_hook(disturb)
