"""8-bit linears for the CPU (`dtype="int8"`): weights rounded once per output channel, activations per call.

Off by default: the latents change by 3 to 6 % over six patches of the `golden` checkpoint (`tests/voxcpm/test_speed_paths.py`).
The effect on the audio of the released model was not measured. The original weights cannot be restored, so a quantized model
cannot be saved or given adapters.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from voxcpm.errors import CheckpointError


class Int8Linear(nn.Module):
    """x W^T + b with W = scale_o * int8 (symmetric, one scale per output row) and x rounded to 8 bits over its whole range."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        wide = weight.detach().float()
        scales = (wide.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        with warnings.catch_warnings():
            # torch warns that its quantized tensor types will move to another package; the kernel is in torch only.
            warnings.simplefilter("ignore")
            rounded = torch.quantize_per_channel(
                wide, scales.double(), torch.zeros(len(wide), dtype=torch.int64), 0, torch.qint8
            )
            self._packed: Any = torch.ops.quantized.linear_prepack(rounded, None if bias is None else bias.float())

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features], float32."""
        # reduce_range is for processors without VNNI, whose 16-bit sums would saturate.
        y: Tensor = torch.ops.quantized.linear_dynamic(x, self._packed, not _has_wide_sums())
        return y

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        probe = fn(torch.zeros(0))
        if probe.device.type != "cpu" or probe.dtype != torch.float32:
            raise RuntimeError(
                "an int8 model stays on the CPU with float32 activations: load it in another dtype instead"
            )
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        raise RuntimeError("an int8 model has lost its weights' last bits and is not saved: load the checkpoint again")


def _has_wide_sums() -> bool:
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def quantise_towers(model: nn.Module) -> nn.Module:
    """Convert every plain linear inside the model's towers to int8, in place, one by one.

    The projections between the towers are not changed. model: in float32 on the CPU. Raises CheckpointError if torch has no
    int8 kernel for this machine.
    """
    from voxcpm.model.tower import Tower

    if not {"x86", "fbgemm"} & set(torch.backends.quantized.supported_engines):
        raise CheckpointError("dtype 'int8' needs an x86 processor: use bfloat16 or float32 here")
    for tower in [module for module in model.modules() if isinstance(module, Tower)]:
        for parent in list(tower.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is nn.Linear:
                    setattr(parent, name, Int8Linear(child.weight, child.bias))
    return model


def is_quantised(model: nn.Module) -> bool:
    """Return True if any of the model's linears is int8."""
    return any(isinstance(module, Int8Linear) for module in model.modules())
