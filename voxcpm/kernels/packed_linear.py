"""Linear layers in the CPU's inference form: their weights are laid out once for the kernels that read them.

`pack_linears` converts every `nn.Linear` of a model to a `PackedLinear`, and `unpack_linears` converts them back. The state
dict is the same in both forms, so saving, loading and LoRA work with either. Gradients need the plain form.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_ROUNDED: ContextVar[bool] = ContextVar("_ROUNDED", default=False)


@contextmanager
def rounded_rows() -> Iterator[None]:
    """Let packed linears compute a rounded number of rows: for inputs of any length, not for a step, whose shapes are few.

    oneDNN makes a kernel for each number of rows and keeps the last 1,024, each with about 0.3 MiB. Texts of 200 lengths took
    340 MiB on the `golden` checkpoint, and a length that was not seen before had to wait for its kernels.
    """
    token = _ROUNDED.set(True)
    try:
        yield
    finally:
        _ROUNDED.reset(token)


def round_rows(rows: int) -> int:
    """Return `rows`, rounded up to three significant bits: at most a quarter more, and four values between powers of two."""
    unit = 1 << max(0, rows.bit_length() - 3)
    return -(-rows // unit) * unit


class PackedLinear(nn.Module):
    """x W^T + b for inference.

    On x86 in float32 and bfloat16, oneDNN keeps the weight in a blocked layout and runs full-width AVX-512 kernels. In float32
    they are 2 to 4 times faster than the BLAS call behind `F.linear` on the shapes of this model (4 x 4096 x 8192: 4.5 against
    17 ms, 22 x 512 x 2048: 0.23 against 0.64 ms, one thread), in bfloat16 up to 1.8 times; with AVX2 alone, docs/benchmarks.md
    has the gain of the whole model. Otherwise this is `F.linear`. Only one of the two layouts is in memory.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.dtype = weight.dtype
        self.register_buffer("weight", weight.detach().contiguous(), persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach().clone(), persistent=True)
        self._packed: Tensor | None = None
        self._pack()

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        if self._packed is None:
            assert self.weight is not None
            return F.linear(x, self.weight, self.bias)
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError("linears packed for inference have no gradients: unpack_linears(model) first")
        rows = x.numel() // self.in_features
        if _ROUNDED.get() and (more := round_rows(rows) - rows):
            y = self._product(F.pad(x.reshape(rows, -1), (0, 0, 0, more)))[:rows]
            return y.reshape(*x.shape[:-1], self.out_features)
        return self._product(x)

    def _product(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")
        return y

    def dense_weight(self) -> Tensor:
        """The weight [out_features, in_features] in its usual layout (a copy if packed)."""
        if self._packed is not None:
            return self._packed.to_dense()
        assert self.weight is not None
        return self.weight

    def plain(self) -> nn.Linear:
        """An `nn.Linear` with the same values, without gradients."""
        with torch.device("meta"):
            linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        linear.weight = nn.Parameter(self.dense_weight(), requires_grad=False)
        if self.bias is not None:
            linear.bias = nn.Parameter(self.bias, requires_grad=False)
        return linear.train(self.training)

    def _pack(self) -> None:
        weight = self.weight
        if weight is not None:
            self.dtype = weight.dtype
            if _onednn_serves(weight):
                self._packed = torch.ops.mkldnn._reorder_linear_weight(weight)
                self.weight = None  # one copy in memory, not two

    def _unpack(self) -> None:
        if self._packed is not None:
            self.weight, self._packed = self._packed.to_dense(), None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # `.to()` and similar calls do not support the opaque layout: give them a dense weight, then pack again if possible.
        self._unpack()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._pack()
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        # Before the bias, in the order of nn.Linear.
        destination[prefix + "weight"] = self.dense_weight()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, missing_keys: Any,
                              unexpected_keys: Any, error_msgs: Any) -> None:  # fmt: skip
        key = prefix + "weight"
        given = state_dict.get(key)
        if given is None:
            missing_keys.append(key)
        elif tuple(given.shape) != (self.out_features, self.in_features):
            error_msgs.append(f"{key} has shape {list(given.shape)}, not {[self.out_features, self.in_features]}")
        else:
            old = self.dense_weight()
            self._packed = None
            self.weight = given.detach().to(device=old.device, dtype=old.dtype, copy=True)
            self._pack()
        rest = {name: value for name, value in state_dict.items() if name.startswith(prefix) and name != key}
        super()._load_from_state_dict(rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)

    def __getstate__(self) -> dict[str, Any]:
        # Copying and pickling need the dense weight too.
        state = self.__dict__.copy()
        if self._packed is not None:
            state["_buffers"] = {**self._buffers, "weight": self._packed.to_dense()}
            state["_packed"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._pack()


def pack_linears(model: nn.Module) -> nn.Module:
    """Convert every plain `nn.Linear` of the model (no subclass, so no adapter) to its inference form, in place.

    The weights are converted one by one, so that only one copy of the model is in memory. If the fast kernels are missing
    (another device, processor or dtype), nothing is changed. Module references taken before still hold the plain linears.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and _onednn_serves(child.weight):
                setattr(parent, name, PackedLinear(child.weight, child.bias).train(child.training))
    return model


def unpack_linears(model: nn.Module) -> nn.Module:
    """Undo `pack_linears`, in place: plain linears with the same values, for training or a move to another device."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is PackedLinear:
                setattr(parent, name, child.plain())
    return model


def is_slow(dtype: str | torch.dtype, device: torch.device) -> bool:
    """Return True if the device is an x86 processor without instructions for a dtype: bfloat16 needs AVX-512."""
    return (
        str(dtype) in ("bfloat16", "torch.bfloat16")
        and device.type == "cpu"
        and platform.machine() in ("x86_64", "AMD64")
        and hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported")
        and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _onednn_serves(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and (weight.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )
