"""The optimizer, its schedule and gradient clipping."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from trainer.config import OptimSettings, Phase

_LAST_RATE = 0.1
"""Share of the learning rate that a cosine schedule ends with."""


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a tensor: the whole tensor, or its shard (the same memory)."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class _OnShards(torch.optim.AdamW):
    """AdamW that computes on each rank's own shards. Its state is sharded like the weights.

    The update of an element needs no other element, so the result is the same to the bit. With lists of sharded tensors, torch
    would plan every operation over all of them, which takes a second and more in the first step.
    """

    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> bool:
        has_complex: bool = super()._init_group(group, *lists)  # type: ignore[no-untyped-call]
        for tensors in lists:
            tensors[:] = map(local, tensors)
        return has_complex


def make_optimizer(model: nn.Module, settings: OptimSettings, lr: float) -> torch.optim.AdamW:
    """Return AdamW over the trained parameters. Only the matrices of linears have weight decay; norms, biases, embeddings and
    special tokens have none."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            matrix = parameter.dim() == 2 and "embed" not in name
            (decayed if matrix else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    on_gpu = next(model.parameters()).is_cuda
    return _OnShards(
        [group for group in groups if group["params"]],
        lr=lr,
        betas=settings.betas,
        fused=on_gpu,
        foreach=not on_gpu,
    )


def learning_rate(phase: Phase, step: int) -> float:
    """Return the rate at step 0..steps-1 of a phase: linear warm-up, then the phase's `schedule` (see `Phase`)."""
    return scheduled(phase.lr, phase.schedule, step, phase.steps, phase.warmup, phase.decay)


def scheduled(
    lr: float, schedule: str, step: int, steps: int, warmup: int = 0, decay: float = 0.2, last: float = _LAST_RATE
) -> float:
    """Return the rate at step 0..steps-1 for a maximum of `lr`: linear warm-up, then the schedule.

    Schedules: cosine down to the share `last`, constant, linear to zero, or "wsd": constant, with a linear decay over the last
    share `decay` of the steps.
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    if schedule == "cosine":
        return lr * (last + (1 - last) * 0.5 * (1 + cos(pi * progress)))
    if schedule == "linear":
        return lr * (1 - progress)
    if schedule == "wsd":
        return lr * min(1.0, (steps - step) / max(1.0, decay * steps))
    return lr


@torch.no_grad()
def clip_gradients(parameters: Sequence[nn.Parameter], largest: float) -> float:
    """Scale all gradients down if their common norm is above `largest`; return the norm before scaling, over all shards."""
    # torch.nn.utils.clip_grad_norm_ would scale lists of sharded tensors: see _OnShards.
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    factor = (largest / (norm + 1e-6)).clamp(max=1.0)
    if gradients:
        torch._foreach_mul_([local(gradient) for gradient in gradients], factor)
    return float(norm)
