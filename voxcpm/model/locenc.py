"""LocEnc: encodes the P frames of a patch as one vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from voxcpm.config import TowerConfig
from voxcpm.model.attention import FULL
from voxcpm.model.tower import Tower


class LocEnc(nn.Module):
    """[special, frame_1..P] through a bidirectional tower; the output at the special token is the patch's embedding."""

    def __init__(self, config: TowerConfig, feat_dim: int) -> None:
        super().__init__()
        self.special_token = nn.Parameter(torch.zeros(1, 1, 1, config.hidden))
        self.in_proj = nn.Linear(feat_dim, config.hidden)
        self.encoder = Tower(config)

    def forward(self, patches: Tensor) -> Tensor:
        """[..., P, D] -> [..., He]."""
        rows = patches.flatten(0, -3)
        special = self.special_token.view(1, 1, -1).expand(rows.shape[0], -1, -1)
        tokens = torch.cat((special, self.in_proj(rows)), dim=1)
        hidden: Tensor = self.encoder(tokens, FULL, keep=slice(0, 1))[:, 0]
        return hidden.reshape(*patches.shape[:-2], hidden.shape[-1])
