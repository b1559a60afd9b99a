"""The optimizer, its schedule, and the moving average of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from trainer.config import OptimSettings, Phase


def make_optimizer(model: nn.Module, settings: OptimSettings, lr: float) -> torch.optim.AdamW:
    """AdamW over what is trained, with decay on matrices of linears only; norms, biases, embeddings and special tokens
    have none."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            matrix = parameter.dim() == 2 and "embed" not in name
            (decayed if matrix else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    on_gpu = next(model.parameters()).is_cuda
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=lr,
        betas=settings.betas,
        fused=on_gpu,
        foreach=not on_gpu,
    )


def learning_rate(phase: Phase, step: int) -> float:
    """The rate at step 0..steps-1 of a phase: linear warm-up, then as `schedule` says (see `Phase`)."""
    if step < phase.warmup:
        return phase.lr * (step + 1) / phase.warmup
    progress = (step - phase.warmup) / max(1, phase.steps - phase.warmup)
    if phase.schedule == "cosine":
        return phase.lr * (0.1 + 0.9 * 0.5 * (1 + cos(pi * progress)))
    if phase.schedule == "linear":
        return phase.lr * (1 - progress)
    if phase.schedule == "wsd":
        return phase.lr * min(1.0, (phase.steps - step) / max(1.0, phase.decay * phase.steps))
    return phase.lr


def clip_gradients(parameters: Sequence[nn.Parameter], largest: float) -> float:
    """Scale all gradients down where their common norm is above `largest`; returns the norm before, over all shards."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, largest)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
