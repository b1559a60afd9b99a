"""torch.compile for the towers whose input shape repeats: LocDiT's, nine times per patch, and LocEnc's.

This is for GPUs, on which launching their many small kernels takes longer than running them. With CUDA graphs a whole tower is
one launch. TSLM and RALM stay eager, because their caches grow with every patch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from voxcpm.kernels.packed_linear import unpack_linears
from voxcpm.model.attention import FULL, PassContext, Reach
from voxcpm.model.backbone import VoxCPM2
from voxcpm.model.tower import Tower


class CompiledTower:
    """A compiled forward for full reach; rows are padded to the next power of two, so that few shapes are compiled."""

    def __init__(self, tower: Tower, mode: str | None, backend: str) -> None:
        self._tower = tower
        self._run = torch.compile(tower.run_blocks, mode=mode, dynamic=False, backend=backend)

    def __call__(self, x: Tensor, reach: Reach, *rest: Any, keep: slice | None = None) -> Tensor:
        """Run `Tower.forward` without positions and cache. Raises ValueError if they are given or the reach is not full."""
        if reach is not FULL or any(value is not None for value in rest):
            raise ValueError("only towers with full reach are compiled")
        rows = x.shape[0]
        missing = (1 << max(rows - 1, 0).bit_length()) - rows
        if missing:
            x = torch.cat((x, x.new_zeros(missing, *x.shape[1:])))
        if x.is_cuda:
            torch.compiler.cudagraph_mark_step_begin()
        # Look up the rotary tables outside: compiled code would compute the whole tables in every call.
        hidden: Tensor = self._run(x, PassContext(reach, self._tower.rope(x, None), keep))
        # The next run of a graph overwrites its output.
        return hidden[:rows].clone()


def compile_towers(backbone: VoxCPM2, cuda_graphs: bool = True, backend: str = "inductor") -> VoxCPM2:
    """Compile in place, for inference. The first call with each power of two of rows takes seconds to minutes.

    backend: that of torch.compile. The linears are unpacked first, because a compiler cannot optimize oneDNN's opaque layout.
    On a CPU this is therefore slower than the packed form.
    """
    unpack_linears(backbone)
    mode = "reduce-overhead" if cuda_graphs and backbone.device.type == "cuda" else None
    for tower in (backbone.feat_decoder.estimator.decoder, backbone.feat_encoder.encoder):
        assert isinstance(tower, Tower)
        tower.forward = CompiledTower(tower, mode, backend)  # type: ignore[method-assign,assignment]
    return backbone
