"""The model against its plainest form, over configs that no golden set covers."""

from __future__ import annotations

from math import cos, pi
from typing import Any

import plain_voxcpm as plain
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_closeness import assert_close
from test_packed_training import make_sample
from tiny_voxcpm import tiny_dict

from voxcpm.config import VoxCPM2Config
from voxcpm.model.backbone import VoxCPM2
from voxcpm.model.flow import Solver
from voxcpm.sequence.training_batch import TrainingNoise
from voxcpm.sequence.training_rows import pack_rows

P, D = 2, 6
CONFIGS = st.fixed_dictionaries(
    {
        "lm_config__use_mup": st.booleans(),
        "lm_config__scale_emb": st.sampled_from([1, 12]),
        "lm_config__num_hidden_layers": st.integers(1, 3),
        "lm_config__max_position_embeddings": st.sampled_from([256, 1024]),  # 1024: long factors and an amplitude
        "lm_config__kv_channels": st.sampled_from([8, None]),
        "lm_config__num_key_value_heads": st.sampled_from([1, 2, 4]),
        "lm_config__rms_norm_eps": st.sampled_from([1e-5, 1e-3]),
        "residual_lm_no_rope": st.booleans(),
        "scalar_quantization_scale": st.sampled_from([1, 4, 9]),
        "dit_config__num_layers": st.integers(1, 3),
        "encoder_config__num_layers": st.integers(1, 3),
        "dit_config__dit_mean_mode": st.booleans(),
    }
)


def build(changes: dict[str, Any]) -> tuple[VoxCPM2, dict[str, Any], dict[str, torch.Tensor]]:
    values = tiny_dict(**changes)
    model = VoxCPM2.from_config(VoxCPM2Config.from_dict(values), torch.Generator().manual_seed(1)).eval()
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            # Norms and biases too must not be at their neutral values.
            parameter.add_(torch.randn(parameter.shape, generator=g) * 0.05)
    return model, values, model.state_dict()


@settings(max_examples=15, deadline=None)
@given(changes=CONFIGS)
@torch.no_grad()
def test_losses(changes: dict[str, Any]) -> None:
    changes = {**changes, "dit_config__dit_mean_mode": False}
    low, high, scale = 0.2, 0.8, 0.5
    changes["dit_config__cfm_config"] = {
        "t_scheduler": "uniform",
        "training_cfg_rate": 0.4,
        "noise_cond_prob_range": [low, high],
        "noise_cond_scale": scale,
    }
    model, values, w = build(changes)
    sample = make_sample(5, text=4, patches=4, reference=2)
    batch = pack_rows([[sample]])
    noise = TrainingNoise.draw((1, sample.length), (P, D), torch.Generator().manual_seed(3), log_norm=False)
    losses = model.training_losses(batch, noise, progress=0.5)
    h, r = plain.hidden_states(w, values, batch.text_tokens[0], batch.audio_mask[0], batch.features[0])
    errors, crossed = [], []
    for i in batch.loss_mask[0].nonzero().flatten().tolist():
        mu = plain.condition(w, h[i - 1], r[i - 1]) * float(noise.cfg_keep_uniform[0, i] > 0.4)
        cond = batch.features[0, i - 1]
        assert noise.cond_noise_uniform is not None and noise.cond_noise_normal is not None
        if noise.cond_noise_uniform[0, i] > 1 - (low + 0.5 * (high - low)):
            cond = cond + noise.cond_noise_normal[0, i] * scale
        t, z, data = noise.t_draw[0, i], noise.z_normal[0, i], batch.features[0, i]
        u = plain.velocity(w, values, (1 - t) * data + t * z, mu, t, cond)
        errors.append(((u - (z - data)) ** 2).mean())
        logits = plain.linear(w, "stop_head", torch.nn.functional.silu(plain.linear(w, "stop_proj", h[i - 1])))
        crossed.append(torch.nn.functional.cross_entropy(logits, batch.stop_labels[0, i]))
    assert_close(losses.diffusion, torch.stack(errors).mean(), 1e-4)
    assert_close(losses.stop, torch.stack(crossed).mean(), 1e-4)


@pytest.mark.parametrize("cfg", [1.0, 2.5])
@settings(max_examples=8, deadline=None)
@given(
    changes=CONFIGS, zero_star=st.booleans(), sway=st.sampled_from([0.0, 1.0, -0.5]), steps=st.sampled_from([1, 3, 7])
)
@torch.no_grad()
def test_solver(cfg: float, changes: dict[str, Any], zero_star: bool, sway: float, steps: int) -> None:
    model, values, w = build(changes)
    g = torch.Generator().manual_seed(4)
    h, r = torch.randn(32, generator=g), torch.randn(32, generator=g)
    cond, noise = torch.randn(P, D, generator=g), torch.randn(P, D, generator=g)
    got = model.feat_decoder.solve(
        model.condition(h[None], r[None]), cond[None], noise[None], cfg, Solver(steps, sway, zero_star, 0.9)
    )[0]
    mu, x = plain.condition(w, h, r), noise * 0.9
    grid = [(u := 1 - k / steps) + sway * (cos(pi / 2 * u) - 1 + u) for k in range(steps + 1)]
    for k in range(steps):
        dt = grid[k] - grid[k + 1]
        if zero_star and k < max(1, int(0.04 * (steps + 1))):
            continue
        given_dt = dt if values["dit_config"]["dit_mean_mode"] else 0.0
        vc = plain.velocity(w, values, x, mu, grid[k], cond, given_dt)
        vu = plain.velocity(w, values, x, torch.zeros_like(mu), grid[k], cond, given_dt)
        s = (vc * vu).sum() / ((vu * vu).sum() + 1e-8) if zero_star else 1.0
        x = x - dt * (s * vu + cfg * (vc - s * vu))
    assert_close(got, x, 1e-4 * max(1.0, float(x.abs().max())))


@torch.no_grad()
def test_the_mean_flow_target_by_finite_differences() -> None:
    """du/dt along the flow, with r fixed: y moves with the velocity, t and dt = t - r move together."""
    model, values, w = build(
        {"dit_config__dit_mean_mode": True, "dit_config__cfm_config": {"ratio_r_neq_t_range": [1.0, 1.0]}}
    )
    sample = make_sample(5, text=3, patches=2)
    batch = pack_rows([[sample]])
    noise = TrainingNoise.draw((1, sample.length), (P, D), torch.Generator().manual_seed(3))
    losses = model.training_losses(batch, noise)
    h, r = plain.hidden_states(w, values, batch.text_tokens[0], batch.audio_mask[0], batch.features[0])
    assert noise.r_draw is not None
    errors, double = [], {name: tensor.double() for name, tensor in w.items()}
    for i in batch.loss_mask[0].nonzero().flatten().tolist():
        mu = (plain.condition(w, h[i - 1], r[i - 1]) * float(noise.cfg_keep_uniform[0, i] > 0.1)).double()
        a, b = (torch.sigmoid(x[0, i].double() - 0.4) for x in (noise.t_draw, noise.r_draw))
        t, early = torch.maximum(a, b), torch.minimum(a, b)
        z, data, cond = noise.z_normal[0, i].double(), batch.features[0, i].double(), batch.features[0, i - 1].double()
        v, y = z - data, (1 - t) * data + t * z

        def u(step: float, v=v, y=y, t=t, early=early, mu=mu, cond=cond) -> torch.Tensor:  # type: ignore[no-untyped-def]
            return plain.velocity(double, values, y + step * v, mu, t + step, cond, t + step - early)

        slope = (u(1e-6) - u(-1e-6)) / 2e-6
        errors.append(((u(0.0) - (v - (t - early) * slope)) ** 2).mean())
    assert_close(losses.diffusion, torch.stack(errors).mean(), 2e-3 * float(losses.diffusion))
