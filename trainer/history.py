"""Noise on what a model has heard, so that it learns to recover from its own mistakes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from voxcpm.model import VoxCPM2


def add_history_noise(model: VoxCPM2, scale: float) -> torch.utils.hooks.RemovableHandle:
    """While training, every patch that LocEnc hears gets Gaussian noise of a standard deviation drawn evenly from [0, scale].

    Patches of the past are exact in training, while those a model speaks are its own: a small model follows the recording it
    has heard rather than the text, and is lost after its first mistake. What is to be predicted stays exact. The numbers
    come from torch's global generator, which the trainer seeds in every step.
    """

    def disturb(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not module.training:
            return None
        patches: Tensor = inputs[0]
        strength = scale * torch.rand(len(patches), 1, 1, device=patches.device, dtype=patches.dtype)
        return (patches + strength * torch.randn_like(patches), *inputs[1:])

    return model.feat_encoder.register_forward_pre_hook(disturb)
