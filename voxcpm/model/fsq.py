"""Finite scalar quantization of the TSLM's hidden state: the semantic bottleneck between TSLM and RALM."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FSQ(nn.Module):
    """q = round(S tanh(in_proj h)) / S, y = out_proj q: 2S + 1 levels per dimension (S = 9 gives 19)."""

    def __init__(self, in_dim: int, out_dim: int, latent_dim: int = 64, scale: int = 9) -> None:
        super().__init__()
        self.in_proj = nn.Linear(in_dim, latent_dim)
        self.out_proj = nn.Linear(latent_dim, out_dim)
        self.scale = scale

    def quantise(self, h: Tensor) -> Tensor:
        """Quantize [..., H] to [..., L] on the grid k/S; gradients pass as if there were no rounding (straight-through).

        Halves are rounded to even. The gradient is that of tanh: z + stopgrad(q - z).
        """
        z = torch.tanh(self.in_proj(h))
        q = torch.round(z * self.scale) / self.scale
        return z + (q - z).detach() if torch.is_grad_enabled() and z.requires_grad else q

    def forward(self, h: Tensor) -> Tensor:
        """[..., in_dim] -> [..., out_dim]."""
        return self.out_proj(self.quantise(h))
