"""VoxCPM2 once more, as plainly as it can be written: no caches, no skipped work, one position after the other.

Only formulas of the reference's description, on a state dict, straight from the config.json dict. It checks that the product's
shortcuts and its reading of the config hold for configs that have no golden vectors.
"""

from __future__ import annotations

from math import exp, log, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def norm(w: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * w[f"{name}.weight"]


def rope(x: Tensor, lm: dict[str, Any]) -> Tensor:
    """[heads, T, hd], one pair of channels at a time."""
    scaling, most = lm["rope_scaling"], lm["max_position_embeddings"]
    original = scaling["original_max_position_embeddings"]
    factors = scaling["long_factor"] if most > original else scaling["short_factor"]
    amplitude = sqrt(1 + log(most / original) / log(original))
    half, out = x.shape[-1] // 2, x.clone()
    for j in range(half):
        angle = torch.arange(x.shape[1]) * lm["rope_theta"] ** (-2 * j / (2 * half)) / factors[j]
        c, s = angle.cos() * amplitude, angle.sin() * amplitude
        out[..., j] = x[..., j] * c - x[..., j + half] * s
        out[..., j + half] = x[..., j + half] * c + x[..., j] * s
    return out


def tower(
    w: Weights, prefix: str, x: Tensor, lm: dict[str, Any], heads: int, layers: int, causal: bool, use_rope: bool = True
) -> Tensor:
    """[T, H] -> [T, H]."""
    scale = lm["scale_depth"] / sqrt(layers) if lm["use_mup"] else 1.0
    groups, eps = lm["num_key_value_heads"], lm["rms_norm_eps"]
    for i in range(layers):
        p = f"{prefix}.layers.{i}"
        y = norm(w, f"{p}.input_layernorm", x, eps)
        q, k, v = (linear(w, f"{p}.self_attn.{n}_proj", y).unflatten(-1, (c, -1)).transpose(0, 1)
                   for n, c in (("q", heads), ("k", groups), ("v", groups)))  # fmt: skip
        if use_rope:
            q, k = rope(q, lm), rope(k, lm)
        out = []
        for h in range(heads):
            g = h // (heads // groups)
            scores = q[h] @ k[g].T / sqrt(q.shape[-1])
            if causal:
                scores = scores.masked_fill(~torch.ones_like(scores, dtype=torch.bool).tril(), float("-inf"))
            out.append(scores.softmax(-1) @ v[g])
        x = x + scale * linear(w, f"{p}.self_attn.o_proj", torch.cat(out, -1))
        y = norm(w, f"{p}.post_attention_layernorm", x, eps)
        gated = F.silu(linear(w, f"{p}.mlp.gate_proj", y)) * linear(w, f"{p}.mlp.up_proj", y)
        x = x + scale * linear(w, f"{p}.mlp.down_proj", gated)
    return norm(w, f"{prefix}.norm", x, lm["rms_norm_eps"])


def hidden_states(
    w: Weights, config: dict[str, Any], tokens: Tensor, audio: Tensor, features: Tensor
) -> tuple[Tensor, Tensor]:
    """tokens, audio: [T], features: [T, P, D] -> h', r [T, H]; LocEnc on every position, as the reference."""
    lm, enc = config["lm_config"], config["encoder_config"]
    heard = []
    for patch in features:
        rows = torch.cat((w["feat_encoder.special_token"].view(1, -1), linear(w, "feat_encoder.in_proj", patch)))
        heard.append(tower(w, "feat_encoder.encoder", rows, lm, enc["num_heads"], enc["num_layers"], False)[0])
    mask = audio[:, None].float()
    embedded = linear(w, "enc_to_lm_proj", torch.stack(heard)) * mask
    text = F.embedding(tokens, w["base_lm.embed_tokens.weight"]) * (lm["scale_emb"] if lm["use_mup"] else 1.0)
    x = text * (1 - mask) + embedded
    h = tower(w, "base_lm", x, lm, lm["num_attention_heads"], lm["num_hidden_layers"], True)
    levels = config["scalar_quantization_scale"]
    z = torch.tanh(linear(w, "fsq_layer.in_proj", h))
    quantized = linear(w, "fsq_layer.out_proj", z + ((z * levels).round() / levels - z).detach())
    h = quantized * mask + h * (1 - mask)
    fused = linear(w, "fusion_concat_proj", torch.cat((h, embedded), -1))
    free = not config["residual_lm_no_rope"]
    return h, tower(
        w, "residual_lm", fused, lm, lm["num_attention_heads"], config["residual_lm_num_layers"], True, free
    )


def sinusoid(t: float | Tensor, width: int, dtype: torch.dtype) -> Tensor:
    half = width // 2
    angle = 1000 * t * torch.tensor([exp(-k * log(10000) / (half - 1)) for k in range(half)], dtype=dtype)
    return torch.cat((angle.sin(), angle.cos()))


def velocity(
    w: Weights, config: dict[str, Any], x: Tensor, mu: Tensor, t: float | Tensor, cond: Tensor, dt: float | Tensor = 0.0
) -> Tensor:
    """x, cond: [P, D], mu: [2, Hd] -> [P, D]."""
    lm, dit, e = config["lm_config"], config["dit_config"], "feat_decoder.estimator"

    def mlp(name: str, value: float | Tensor) -> Tensor:
        wave = sinusoid(value, dit["hidden_dim"], x.dtype)
        return linear(w, f"{e}.{name}.linear_2", F.silu(linear(w, f"{e}.{name}.linear_1", wave)))

    time = (mlp("time_mlp", t) + mlp("delta_time_mlp", dt))[None]
    rows = torch.cat((mu, time, linear(w, f"{e}.cond_proj", cond), linear(w, f"{e}.in_proj", x)))
    out = tower(w, f"{e}.decoder", rows, lm, dit["num_heads"], dit["num_layers"], False)
    return linear(w, f"{e}.out_proj", out[-len(x) :])


def condition(w: Weights, h: Tensor, r: Tensor) -> Tensor:
    """[H], [H] -> [2, Hd]."""
    return torch.stack((linear(w, "lm_to_dit_proj", h), linear(w, "res_to_dit_proj", r)))
