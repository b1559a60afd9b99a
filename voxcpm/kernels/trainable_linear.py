"""Linear layers for float32 training on a CPU, with the faster of torch's two libraries."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LEAST_PRODUCTS = 2**24
"""Fewest multiplications of a linear for which oneDNN is used. It compiles a kernel for every new number of rows (5 to 8 ms of
CPU time for the three products of a step), and smaller linears do not recover that cost."""


class _Product(torch.autograd.Function):
    """x W^T + b and its gradients by oneDNN.

    Its float32 kernels do 225 GFLOP/s on one thread of an AVX-512 EPYC; the BLAS behind `F.linear` does 100 (600 x 512 x 1536).
    The transposed products of the backward pass are alike and need no copies.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        ctx.save_for_backward(rows, weight)
        ctx.shape, ctx.with_bias = x.shape, bias is not None
        return _times(rows, weight, bias).view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        gradient = gradient.reshape(-1, gradient.shape[-1])
        by_x = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            by_x = _times(gradient, weight.t()).view(ctx.shape)
        if ctx.needs_input_grad[1]:
            by_weight = _times(gradient.t(), rows.t())
        if ctx.with_bias and ctx.needs_input_grad[2]:
            by_bias = gradient.sum(0)
        return by_x, by_weight, by_bias


def _times(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """[R, I], [O, I] -> [R, O]."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


def is_quicker_here() -> bool:
    """Return True if oneDNN is faster than the BLAS on this processor.

    On Intel processors it is not. There the BLAS, also by Intel, is as fast in the forward pass and a fifth faster for the
    gradients of weights (a Xeon with AMX: 150 against 125 GFLOP/s on one thread).
    """
    try:
        return "GenuineIntel" not in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return True


class TrainableLinear(nn.Linear):
    """An `nn.Linear` (same weights, same names) that uses oneDNN for products that are large enough to benefit."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        small = x.numel() * self.out_features < LEAST_PRODUCTS
        if small or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return super().forward(x)  # torch uses oneDNN for bfloat16 anyway
        y: Tensor = _Product.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return y


def use_cpu_linears(model: nn.Module) -> int:
    """Convert every plain float32 `nn.Linear` on an x86 CPU to a `TrainableLinear`, in place; return their number.

    Nothing is copied, no name changes, and hooks stay. The layers have no forward-mode derivative, which mean-flow training
    needs.
    """
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():
        return 0
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return 0
    found = 0
    for module in model.modules():
        if type(module) is nn.Linear and module.weight.device.type == "cpu" and module.weight.dtype == torch.float32:
            module.__class__ = TrainableLinear
            found += 1
    return found
