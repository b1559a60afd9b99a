"""Conditional flow matching over one patch: the Euler solver with guidance, and the training loss.

t = 1 is noise, t = 0 is data; the network predicts noise - data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxcpm.config import DiTConfig, TowerConfig
from voxcpm.model.locdit import Condition, LocDiT
from voxcpm.sequence.training_batch import TrainingNoise


@dataclass(frozen=True)
class Solver:
    """Settings of the solver for a patch."""

    steps: int = 10
    sway: float = 1.0  #: 0: uniform times; 1: denser near the noise end
    cfg_zero_star: bool = True
    temperature: float = 1.0

    @property
    def zero_steps(self) -> int:
        """Number of first steps with zero velocity (CFG-Zero*): one for up to 48 steps."""
        return max(1, int(0.04 * (self.steps + 1))) if self.cfg_zero_star else 0


def time_grid(steps: int, sway: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """[steps + 1] times from 1 to 0: u + sway (cos(pi/2 u) - 1 + u) for u evenly spaced over [1, 0], computed in `dtype`."""
    u = torch.linspace(1, 0, steps + 1, dtype=dtype)
    return u + sway * (torch.cos(pi / 2 * u) - 1 + u)


@lru_cache(maxsize=64)
def time_steps(steps: int, sway: float, dtype: torch.dtype) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the estimator's times and the length of each step. The time advances by subtraction, with rounding in `dtype`."""
    grid = time_grid(steps, sway, dtype)
    t = grid[0]
    seen, lengths = [], []
    for following in grid[1:]:
        dt = t - following
        seen.append(float(t))
        lengths.append(float(dt))
        t = t - dt
    return tuple(seen), tuple(lengths)


def guidance_scale(conditional: Tensor, unconditional: Tensor) -> Tensor:
    """CFG-Zero*'s s = <v_c, v_u> / (|v_u|^2 + 1e-8): [N, E], [N, E] -> [N, 1]."""
    dot = (conditional * unconditional).sum(dim=1, keepdim=True)
    return dot / ((unconditional**2).sum(dim=1, keepdim=True) + 1e-8)


class FlowMatching(nn.Module):
    """The diffusion head: LocDiT and its flow (checkpoint prefix `feat_decoder`)."""

    def __init__(self, tower: TowerConfig, config: DiTConfig, feat_dim: int) -> None:
        super().__init__()
        self.estimator = LocDiT(tower, feat_dim)
        self.config = config.cfm_config
        self.mean_mode = config.dit_mean_mode
        self.exact = False  #: see `VoxCPM2.set_exact`

    @torch.inference_mode()
    def forward(
        self,
        mu: Tensor,
        n_timesteps: int,
        patch_size: int,
        cond: Tensor,
        temperature: float = 1.0,
        cfg_value: float = 1.0,
        sway_sampling_coef: float = 1.0,
        use_cfg_zero_star: bool = True,
    ) -> Tensor:
        """Generate patches by the official call: mu [N, 2*Hd], cond (the previous patch) [N, D, P] -> [N, D, P].

        The noise is drawn from torch's global generator in mu's dtype. `solve` takes it instead.
        """
        frames = (mu.shape[0], cond.shape[1], patch_size)
        noise = torch.randn(frames, device=mu.device, dtype=mu.dtype)
        solver = Solver(n_timesteps, sway_sampling_coef, use_cfg_zero_star, temperature)
        return self.solve(mu, cond.mT, noise.mT, cfg_value, solver).mT.to(mu.dtype).contiguous()

    def solve(self, mu: Tensor, previous: Tensor, noise: Tensor, cfg: Tensor | float, solver: Solver) -> Tensor:
        """Generate patches. mu: [N, 2*Hd], previous: [N, P, D], noise: [N, P, D] N(0,1), cfg: one or [N] guidance weights.

        Returns [N, P, D], float32 (in exact mode mu's dtype). v = s v_u + w (v_c - s v_u), where v_u has mu = 0 and the same
        previous patch. For w = 1 this is v_c, so rows with w = 1 have no unconditional branch.
        """
        numbers = mu.dtype if self.exact else torch.float32
        x = noise.to(device=mu.device, dtype=numbers) * solver.temperature
        times, lengths = time_steps(solver.steps, solver.sway, numbers)
        first = solver.zero_steps
        if first >= solver.steps:
            return x
        condition = self.estimator.condition(mu, previous.to(mu.dtype))
        weights, guided, everyone = _guided_rows(cfg, mu, numbers)
        if guided is not None:
            chosen = condition if everyone else Condition(condition.mu[guided], condition.previous[guided])
            condition = condition.join(Condition(torch.zeros_like(chosen.mu), chosen.previous))
        tokens = self._time_tokens(times[first:], lengths[first:], numbers, mu.device)
        rows = condition.mu.shape[0]
        for token, length in zip(tokens, lengths[first:], strict=True):
            both = x if guided is None else torch.cat((x, x if everyone else x[guided]))
            v = self.estimator.velocity(both.to(mu.dtype), token.expand(rows, -1), condition).to(numbers)
            if guided is not None:
                v = _guide(v, x.shape[0], guided, everyone, weights, solver.cfg_zero_star)
            x = x - length * v
        return x

    def _time_tokens(
        self, times: tuple[float, ...], lengths: tuple[float, ...], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """Compute the time tokens of all steps in one call, [steps, Hd]."""
        t = torch.tensor(times, dtype=dtype, device=device)
        dt = torch.tensor(lengths, dtype=dtype, device=device) if self.mean_mode else torch.zeros_like(t)
        return self.estimator.time(t, dt)

    def training_error(
        self, data: Tensor, mu: Tensor, previous: Tensor, noise: TrainingNoise, progress: float
    ) -> tuple[Tensor, Tensor]:
        """Return the squared velocity error of N patches. data, previous: [N, P, D], mu: [N, 2*Hd], noise: fields [N, ...].

        Returns ([N, P] mean over D, float32, with gradient; [N] flow times). y = (1-t) data + t z; the target is z - data.
        In mean mode (t-r) du/dt is subtracted from the target (MeanFlow). Forward-mode differentiation gives the derivative
        of u along the flow.
        """
        dtype = mu.dtype
        keep = noise.cfg_keep_uniform > self.config.training_cfg_rate
        mu = mu * keep.unsqueeze(1).to(dtype)
        previous = self._noisy_condition(previous, noise, progress)
        z = noise.z_normal.float()
        t = self._flow_time(noise.t_draw)
        r = t
        if self.mean_mode:
            r, t = self._two_times(noise, t, progress)
        share = t.view(-1, 1, 1)
        y = (1 - share) * data + share * z
        target = z - data

        def estimate(y: Tensor, t: Tensor, dt: Tensor) -> Tensor:
            # Its call takes frames last, as the official one does.
            return self.estimator(y.to(dtype).mT, mu, t, previous.to(dtype).mT, dt).mT

        if self.mean_mode:
            u, target = self._mean_flow(estimate, y, t, r, target)
        else:
            u = estimate(y, t, t - r)
        return F.mse_loss(u.float(), target, reduction="none").mean(dim=-1), t

    def _noisy_condition(self, previous: Tensor, noise: TrainingNoise, progress: float) -> Tensor:
        low, high = self.config.noise_cond_prob_range
        rate = low + progress * (high - low)
        if rate <= 0.0 or self.config.noise_cond_scale == 0.0:
            return previous
        if noise.cond_noise_uniform is None or noise.cond_noise_normal is None:
            raise ValueError(
                "noise_cond_prob_range is on: TrainingNoise needs cond_noise_uniform and cond_noise_normal"
            )
        chosen = (noise.cond_noise_uniform > 1 - rate).view(-1, 1, 1)
        return previous + chosen * noise.cond_noise_normal * self.config.noise_cond_scale

    def _flow_time(self, draw: Tensor) -> Tensor:
        """Return flow times from a draw. log-norm: sigmoid(-0.4 + N(0,1)); uniform: the draw."""
        return torch.sigmoid(draw.float() - 0.4) if self.config.t_scheduler == "log-norm" else draw.float()

    def _two_times(self, noise: TrainingNoise, t: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        if noise.r_draw is None or noise.rt_mask_uniform is None:
            raise ValueError("dit_mean_mode is on: TrainingNoise needs r_draw and rt_mask_uniform")
        low, high = self.config.ratio_r_neq_t_range
        differ = noise.rt_mask_uniform < low + progress * (high - low)
        other = self._flow_time(noise.r_draw)
        late, early = torch.maximum(t, other), torch.minimum(t, other)
        return torch.where(differ, early, t), torch.where(differ, late, t)

    @staticmethod
    def _mean_flow(estimate, y: Tensor, t: Tensor, r: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        from torch.nn.attention import SDPBackend, sdpa_kernel

        one = torch.ones_like(t)
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no forward-mode derivative
            u, slope = torch.func.jvp(estimate, (y, t, t - r), (velocity, one, one))  # type: ignore[misc]
        return u, velocity - (t - r).view(-1, 1, 1) * slope.detach().float()


def _guided_rows(cfg: Tensor | float, mu: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None, bool]:
    """Return (weights of the guided rows [G, 1, 1], their indices or None if there are none, whether all rows are guided)."""
    weights = torch.as_tensor(cfg, dtype=torch.float64).reshape(-1)
    weights = weights.expand(mu.shape[0]) if weights.numel() == 1 else weights
    guided = (weights != 1.0).nonzero().squeeze(1)
    everyone = len(guided) == mu.shape[0]
    on_device = weights[guided].to(device=mu.device, dtype=dtype).view(-1, 1, 1)
    return on_device, guided.to(mu.device) if len(guided) else None, everyone


def _guide(v: Tensor, rows: int, guided: Tensor, everyone: bool, weights: Tensor, zero_star: bool) -> Tensor:
    """Combine [rows + G, P, D] velocities (all conditional, then the unconditional of the guided rows) into [rows, P, D]."""
    conditional, unconditional = v[:rows], v[rows:]
    own = conditional if everyone else conditional[guided]
    if zero_star:
        unconditional = unconditional * guidance_scale(own.flatten(1), unconditional.flatten(1)).unsqueeze(-1)
    mixed = unconditional + weights * (own - unconditional)
    return mixed if everyone else conditional.index_copy(0, guided, mixed)
