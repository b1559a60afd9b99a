"""The optimiser and its schedule."""

from __future__ import annotations

from math import cos, pi

import torch
from torch import nn

from trainer.config import OptimSettings, Phase


def make_optimizer(model: nn.Module, settings: OptimSettings, lr: float) -> torch.optim.AdamW:
    """AdamW with decay on matrices of linears only; norms, biases, embeddings and special tokens have none."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        matrix = parameter.dim() == 2 and "embed" not in name
        (decayed if matrix else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=settings.betas, foreach=True)


def learning_rate(phase: Phase, step: int) -> float:
    """The rate at step 0..steps-1 of a phase: linear warm-up, then as scheduled down to a tenth (cosine) or zero."""
    if step < phase.warmup:
        return phase.lr * (step + 1) / phase.warmup
    progress = (step - phase.warmup) / max(1, phase.steps - phase.warmup)
    if phase.schedule == "cosine":
        return phase.lr * (0.1 + 0.9 * 0.5 * (1 + cos(pi * progress)))
    return phase.lr * (1 - progress) if phase.schedule == "linear" else phase.lr
