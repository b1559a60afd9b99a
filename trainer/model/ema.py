"""The moving average of the weights, and a context in which the model uses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from trainer.optim import local
from voxcpm.model.backbone import VoxCPM2


class MovingAverage:
    """An exponential moving average of the trained weights in float32, as is usual for diffusion models. It is sharded like the
    weights.

    Early in training the decay is lower, (1 + n) / (10 + n) after n steps, so that the initial weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, model: nn.Module, steps: int) -> None:
        """Update the average with the weights after `steps` steps."""
        weight = 1.0 - min(self.decay, (1 + steps) / (10 + steps))
        live = [local(p.detach()) for p in model.parameters() if p.requires_grad]
        torch._foreach_lerp_([local(value) for value in self.values.values()], live, weight)

    @torch.no_grad()
    def exchange(self, model: nn.Module) -> None:
        """Swap weights and averages, in place since other objects refer to the memory of a sharded weight."""
        for name, parameter in model.named_parameters():
            if name in self.values:
                mine, theirs = local(self.values[name]), local(parameter.detach())
                kept = theirs.clone()
                theirs.copy_(mine)
                mine.copy_(kept)


@contextmanager
def averaged(model: VoxCPM2, average: MovingAverage | None) -> Iterator[None]:
    """Replace the trained weights by their moving average inside the block; without an average do nothing."""
    if average is not None:
        average.exchange(model)
    try:
        yield
    finally:
        if isinstance(model, FSDPModule):
            # A forward pass without a backward leaves the root's weights gathered: the swap would change only the gathered copy.
            model.reshard()
        if average is not None:
            average.exchange(model)
