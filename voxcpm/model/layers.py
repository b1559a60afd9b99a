"""The small modules of a tower: RMSNorm, rotary positions with LongRoPE, the gated MLP."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxcpm.config import TowerConfig


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis, computed in float32 and rounded to x's dtype once."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class SwiGLU(nn.Module):
    """down(silu(gate x) * up x), no biases."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


@lru_cache(maxsize=16)
def rope_table(
    theta: float, factors: tuple[float, ...], amplitude: float, positions: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines and sines [positions, head_dim] in float32: angle(p, j) = p * theta^(-2j/hd) / factor_j, equal in both halves.

    They are multiplied by LongRoPE's amplitude. All towers with the same settings share the tables.
    """
    with torch.inference_mode(False):  # a table made during inference must be usable in training
        half = len(factors)
        exponent = torch.arange(half, dtype=torch.float32, device=device) * 2 / (2 * half)
        frequency = 1.0 / (theta**exponent)
        stretch = 1.0 / torch.tensor(factors, dtype=torch.float32, device=device)
        position = torch.arange(positions, dtype=torch.float32, device=device)
        angle = torch.outer(position, stretch) * frequency
        angle = torch.cat((angle, angle), dim=-1)
        return angle.cos() * amplitude, angle.sin() * amplitude


def rotary(config: TowerConfig, positions: Tensor | int, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Return (cos, sin) for positions [..., T] (or 0..positions-1), each [..., T, head_dim]; None for a tower without RoPE.

    Raises IndexError for a position beyond the tower's `max_positions`.
    """
    if config.rope_theta is None:
        return None
    cos, sin = rope_table(
        config.rope_theta, config.rope_factors, config.rope_amplitude, config.max_positions, torch.device(device)
    )
    if isinstance(positions, int):
        if positions > config.max_positions:
            raise IndexError(f"{positions} positions, but the tower's maximum is {config.max_positions}")
        return cos[:positions], sin[:positions]
    return cos[positions], sin[positions]


def signed(sin: Tensor) -> Tensor:
    """Sines [..., hd] in the form that `rotate` takes: the first half negated, once for all layers."""
    first, second = sin.chunk(2, dim=-1)
    return torch.cat((-first, second), dim=-1)


def rotate(x: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    """Rotate [B, heads, T, hd] by tables that broadcast to it: (x1, x2) -> x cos + (-x2, x1) sin, computed in float32.

    Returns float32; the caller rounds it if its kernel needs another dtype.
    """
    wide = x.float()
    return torch.addcmul(wide * cos, wide.roll(wide.shape[-1] // 2, -1), signed_sin)
