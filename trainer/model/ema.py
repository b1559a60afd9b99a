"""The moving average of the weights, and the context that puts it in their place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from voxcpm.model.backbone import VoxCPM2


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor: all of it, or its shard (the same memory)."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class MovingAverage:
    """An exponential moving average of what is trained, in float32: usual for models of the diffusion family. Sharded where the
    weights are.

    Early on the decay is lower, (1 + n) / (10 + n) after n steps, so that the random start does not linger.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, model: nn.Module, steps: int) -> None:
        """Take in the weights after `steps` steps."""
        weight = 1.0 - min(self.decay, (1 + steps) / (10 + steps))
        live = [local(p.detach()) for p in model.parameters() if p.requires_grad]
        torch._foreach_lerp_([local(value) for value in self.values.values()], live, weight)

    @torch.no_grad()
    def exchange(self, model: nn.Module) -> None:
        """Weights and averages change places, in place, since a sharded weight's memory is referred to elsewhere."""
        for name, parameter in model.named_parameters():
            if name in self.values:
                mine, theirs = local(self.values[name]), local(parameter.detach())
                kept = theirs.clone()
                theirs.copy_(mine)
                mine.copy_(kept)


@contextmanager
def averaged(model: VoxCPM2, average: MovingAverage | None) -> Iterator[None]:
    """Inside, the trained weights are their moving average; nothing happens without one."""
    if average is not None:
        average.exchange(model)
    try:
        yield
    finally:
        if isinstance(model, FSDPModule):
            # A forward pass without a backward leaves the root's weights gathered, so that it would be those that change.
            model.reshard()
        if average is not None:
            average.exchange(model)
