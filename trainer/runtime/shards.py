"""This rank's part of a tensor that is sharded over the ranks."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a tensor: the whole tensor, or its shard (the same memory)."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
