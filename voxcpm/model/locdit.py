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

    In bfloat16 1000 t keeps 8 bits and the result is far off (up to 1.8); pass float32 unless that is wanted.
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
    """What does not change while one patch is solved: the hidden states' tokens and those of the previous patch."""

    mu: Tensor  #: [N, 2, Hd], semantic first; zeros for the branch without guidance
    previous: Tensor  #: [N, P, Hd]

    def join(self, other: Condition) -> Condition:
        """Both one after the other."""
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
        """mu: [N, 2*Hd] (semantic, residual), previous: [N, P, D]. Computed once a patch, used in every solver step."""
        return Condition(mu.view(mu.shape[0], 2, self.width), self.cond_proj(previous))

    def time(self, t: Tensor, dt: Tensor) -> Tensor:
        """[N], [N] -> [N, Hd]: time token. dt is the step's length in mean mode, else 0 (still embedded: it has biases)."""
        dtype = self.decoder.norm.weight.dtype
        return self.time_mlp(sinusoid(t, self.width).to(dtype)) + self.delta_time_mlp(
            sinusoid(dt, self.width).to(dtype)
        )

    def velocity(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """x: [N, P, D] noisy patch, time: [N, Hd] -> [N, P, D]."""
        tokens = torch.cat((condition.mu, time.unsqueeze(1), condition.previous, self.in_proj(x)), dim=1)
        frames = x.shape[1]
        hidden = self.decoder(tokens, FULL, keep=slice(tokens.shape[1] - frames, tokens.shape[1]))
        return self.out_proj(hidden)

    def forward(self, x: Tensor, mu: Tensor, t: Tensor, previous: Tensor, dt: Tensor) -> Tensor:
        """The velocity in one call: x, previous [N, P, D], mu [N, 2*Hd], t, dt [N] -> [N, P, D]."""
        return self.velocity(x, self.time(t, dt), self.condition(mu, previous))
