"""How the model runs on several ranks, recomputes and is compiled: applied from outside, the model knows nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from trainer.config import TrainConfig
from trainer.ranks import Ranks
from voxcpm.model import VoxCPM2
from voxcpm.tower import Block
from voxcpm.training import Losses, TrainingBatch, TrainingNoise

_COMPILED_ROWS = 64
"""Patches of a compiled model are padded to a multiple of this: few shapes, little padding."""


class Parallel:
    """A model on its ranks: how losses are computed and when gradients are exchanged."""

    def __init__(self, ranks: Ranks, model: VoxCPM2, wrapped: DistributedDataParallel | None = None) -> None:
        self.ranks, self._model, self._wrapped = ranks, model, wrapped

    def losses(self, batch: TrainingBatch, noise: TrainingNoise, progress: float) -> Losses:
        """This rank's losses; backward exchanges the gradients' mean (see `part`)."""
        if self._wrapped is not None:
            found: Losses = self._wrapped(batch, noise, progress)
            return found
        return self._model.training_losses(batch, noise, progress)

    @contextmanager
    def part(self, last: bool) -> Iterator[None]:
        """One part of an accumulated step. Copies of a model exchange gradients once, in the last; shards in each, since
        whole gradients are what sharding avoids to hold."""
        with nullcontext() if last or self._wrapped is None else self._wrapped.no_sync():
            yield


def parallelize(model: VoxCPM2, config: TrainConfig, ranks: Ranks, device: torch.device) -> Parallel:
    """Apply recomputing, compiling and sharding, in this order, to a model that lies on `device` with `requires_grad` set.

    Weights stay float32. With FSDP2 in bfloat16 they travel and compute in bfloat16 and gradients are summed in float32.
    """
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    if config.recompute:
        for block in blocks:
            # An instance attribute, not a wrapping module: names of weights stay those of the checkpoint.
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
    if config.compile:
        model.row_multiple = _COMPILED_ROWS
        for block in blocks:
            block.compile()
    if ranks.mode == "fsdp":
        _shard(model, blocks, config, ranks, device)
    if ranks.mode == "ddp":
        # Otherwise buckets are rebuilt after the first step: after a resume, sums over more than two ranks would be rounded in
        # another order than in a run that was not broken. (It costs a walk over the graph, and a warning that this is so.)
        fixed_buckets = ranks.world > 2
        return Parallel(ranks, model, DistributedDataParallel(model, find_unused_parameters=fixed_buckets))
    return Parallel(ranks, model)


def _shard(model: VoxCPM2, blocks: list[Block], config: TrainConfig, ranks: Ranks, device: torch.device) -> None:
    """FSDP2: each block's weights are gathered when it runs and dropped after it; the rest belongs to the root."""
    mesh = init_device_mesh(device.type, (ranks.world,))
    half = config.dtype == "bfloat16"
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if half else None,
        reduce_dtype=torch.float32 if half else None,
        # Rotary tables and times stay float32: the model casts what it must.
        cast_forward_inputs=False,
    )
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def parameters_of(model: nn.Module) -> int:
    """Weights of a model, whole also where this rank holds a shard."""
    return sum(parameter.numel() for parameter in model.parameters())
