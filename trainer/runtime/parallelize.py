"""Sharding, recomputing and compiling, applied to the model from outside: the model's code does not depend on them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from trainer.config import TrainConfig
from trainer.runtime.device import is_compiled
from trainer.runtime.ranks import Ranks
from voxcpm.model.attention import PassContext
from voxcpm.model.backbone import VoxCPM2
from voxcpm.model.tower import Block, Tower
from voxcpm.sequence.training_batch import Losses, TrainingBatch, TrainingNoise

_COMPILED_ROWS = 64
"""The number of patches of a compiled model is padded to a multiple of this: few shapes, little padding."""
_VARIANTS = 64
"""Maximum number of compiled variants of a block: by tower, with and without RoPE, last block of a tower, trained weights."""


class Parallel:
    """A model on its ranks: computes the losses and controls when gradients are exchanged."""

    def __init__(self, ranks: Ranks, model: VoxCPM2, wrapped: DistributedDataParallel | None = None) -> None:
        self.ranks = ranks
        self.losses: Callable[[TrainingBatch, TrainingNoise, float], Losses] = wrapped or model.training_losses
        """This rank's losses of (batch, noise, progress); backward exchanges the gradients' mean (see `no_sync`)."""
        self.no_sync: Callable[[], AbstractContextManager[None]] = nullcontext if wrapped is None else wrapped.no_sync
        """A context for all parts of an accumulated step but the last: replicas (ddp) exchange no gradients in it. Shards exchange
        them in each part, since sharding avoids holding whole gradients."""


def parallelize(model: VoxCPM2, config: TrainConfig, ranks: Ranks, device: torch.device) -> Parallel:
    """Apply compiling, recomputing and sharding, in this order, to a model on `device` with `requires_grad` set.

    Weights stay float32. With FSDP2 in bfloat16, weights are gathered and used in bfloat16, and gradients are summed in float32.
    """
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    if is_compiled(config, device):
        model.row_multiple = _COMPILED_ROWS
        _compile(model)
    if config.compute.recompute:
        for block in blocks:
            # An instance attribute, not a wrapping module, so that the names of the weights stay those of the checkpoint.
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
    if ranks.mode == "fsdp":
        _shard(model, blocks, config, ranks, device)
    if ranks.mode == "ddp":
        # Otherwise DDP rebuilds its buckets after the first step. After a resume, sums over more than two ranks would then be
        # rounded in another order than in an uninterrupted run. (This costs a walk over the graph, and a warning about it.)
        fixed_buckets = ranks.world > 2
        return Parallel(ranks, model, DistributedDataParallel(model, find_unused_parameters=fixed_buckets))
    return Parallel(ranks, model)


def _compile(model: VoxCPM2) -> None:
    """Compile the blocks with torch.compile, for training steps only (validation and speech run uncompiled). The blocks of a tower
    share one compilation, which serves any number of positions or patches.

    A block that cannot be compiled is an error. By default torch would silently run it uncompiled after eight variants, and only
    the speed would show it.
    """
    torch._dynamo.config.recompile_limit = _VARIANTS
    # This analysis of kernel tiling does not support dynamic sizes: it fails with an assertion (torch 2.11; pytorch #181563).
    import torch._inductor.config as inductor

    inductor.triton.coalesce_tiling_analysis = False
    for tower in model.modules():
        if isinstance(tower, Tower):
            # Input of the patch towers: [N, a few, H]; of the language models: one long row, [1, T, H].
            varying = 0 if tower in (model.feat_encoder.encoder, model.feat_decoder.estimator.decoder) else 1
            for block in tower.layers:
                assert isinstance(block, Block)
                block.forward = _Compiled(block, varying)  # type: ignore[method-assign]


class _Compiled:
    """A block's compiled forward. The size that varies between steps is marked dynamic, so that it is not compiled for one size
    first."""

    def __init__(self, block: Block, varying: int) -> None:
        # The function and not the method, so that all blocks of a kind share the compilation.
        self._block, self._run = block, torch.compile(Block.forward, fullgraph=True)
        self._varying = varying

    def __call__(self, x: Tensor, context: PassContext, layer: int = 0) -> Tensor:
        """Run the block, as `Block.forward`. Speech is not compiled, since its cache grows with every patch."""
        if context.cache is not None or not torch.is_grad_enabled():
            return Block.forward(self._block, x, context, layer)
        self._tell(x, self._varying)
        if self._varying == 1:
            for table in context.rope or ():
                self._tell(table, -2)
        if context.reach.offsets is not None:
            self._tell(context.reach.offsets, 0)
        hidden: Tensor = self._run(self._block, x, context)
        return hidden

    @staticmethod
    def _tell(value: Tensor, size: int) -> None:
        torch._dynamo.maybe_mark_dynamic(value, size % value.dim())


def _shard(model: VoxCPM2, blocks: list[Block], config: TrainConfig, ranks: Ranks, device: torch.device) -> None:
    """Shard the model with FSDP2: each block is gathered when it runs and freed afterwards; the rest belongs to the root."""
    mesh = init_device_mesh(device.type, (ranks.world,))
    half = config.compute.dtype == "bfloat16"
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if half else None,
        reduce_dtype=torch.float32 if half else None,
        # Rotary tables and times stay float32: the model casts what it must.
        cast_forward_inputs=False,
    )
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
