"""LocDiT: the velocity of one patch, given two hidden states, the previous patch and the flow time."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxcpm.config import TowerConfig
from voxcpm.model.attention import FULL
from voxcpm.model.tower import Tower


def sinusoid(t: Tensor, width: int) -> Tensor:
    """[N] -> [N, width]: sin then cos of 1000 t w_k, w_k = exp(-k ln(10000) / (width/2 - 1)), computed in t's dtype.

    In bfloat16, 1000 t has only 8 bits and the error of the result is up to 1.8. Pass float32 unless that is intended.
    """
    half = width // 2
    w = torch.exp(torch.arange(half, device=t.device).to(t.dtype) * -(log(10000.0) / (half - 1)))
    angle = 1000 * t.unsqueeze(-1) * w
    return torch.cat((angle.sin(), angle.cos()), dim=-1)


class TimeMLP(nn.Module):
    """linear, SiLU, linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[N, width] -> [N, width]."""
        return self.linear_2(F.silu(self.linear_1(x)))


@dataclass(frozen=True)
class Condition:
    """The inputs that are constant over a patch's solver steps: tokens of the hidden states and of the previous patch."""

    mu: Tensor  #: [N, 2, Hd], semantic first; zeros for the unconditional branch
    previous: Tensor  #: [N, P, Hd]

    def join(self, other: Condition) -> Condition:
        """Concatenate two conditions along N."""
        return Condition(torch.cat((self.mu, other.mu)), torch.cat((self.previous, other.previous)))


class LocDiT(nn.Module):
    """2 + 1 + P + P tokens [mu_sem, mu_res, time, previous patch, noisy patch]; the last P outputs are the velocity."""

    def __init__(self, config: TowerConfig, feat_dim: int) -> None:
        super().__init__()
        self.width = config.hidden
        self.in_proj = nn.Linear(feat_dim, config.hidden)
        self.cond_proj = nn.Linear(feat_dim, config.hidden)
        self.out_proj = nn.Linear(config.hidden, feat_dim)
        self.time_mlp = TimeMLP(config.hidden)
        self.delta_time_mlp = TimeMLP(config.hidden)
        self.decoder = Tower(config)

    def condition(self, mu: Tensor, previous: Tensor) -> Condition:
        """Return the condition of mu: [N, 2*Hd] (semantic, residual) and previous: [N, P, D].

        It is computed once per patch and used in every solver step.
        """
        return Condition(mu.view(mu.shape[0], 2, self.width), self.cond_proj(previous))

    def time(self, t: Tensor, dt: Tensor) -> Tensor:
        """Return time tokens [N, Hd] for t, dt: [N].

        dt is the length of the step in mean mode, otherwise 0, which is embedded too because the MLP has biases.
        """
        dtype = self.decoder.norm.weight.dtype
        return self.time_mlp(sinusoid(t, self.width).to(dtype)) + self.delta_time_mlp(
            sinusoid(dt, self.width).to(dtype)
        )

    def velocity(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return the velocity [N, P, D] of a noisy patch x: [N, P, D] with time tokens [N, Hd]."""
        tokens = torch.cat((condition.mu, time.unsqueeze(1), condition.previous, self.in_proj(x)), dim=1)
        frames = x.shape[1]
        hidden = self.decoder(tokens, FULL, keep=slice(tokens.shape[1] - frames, tokens.shape[1]))
        return self.out_proj(hidden)

    def forward(self, x: Tensor, mu: Tensor, t: Tensor, cond: Tensor, dt: Tensor) -> Tensor:
        """The velocity in one call, in the official layout: x, cond [N, D, P], mu [N, 2*Hd], t, dt [N] -> [N, D, P]."""
        condition = self.condition(mu, cond.transpose(1, 2))
        return self.velocity(x.transpose(1, 2), self.time(t, dt), condition).transpose(1, 2)
