"""Small models of any shape, for tests that need no golden numbers."""

from __future__ import annotations

from typing import Any

import torch

from voxcpm.config import VoxCPM2Config
from voxcpm.model.backbone import VoxCPM2

FACTORS = [1.0, 1.3, 2.0, 4.0]


def tiny_dict(**changes: Any) -> dict[str, Any]:
    """A config.json of a model with a few thousand weights; changes by dotted name with __ for dots."""
    values: dict[str, Any] = {
        "architecture": "voxcpm2",
        "lm_config": {
            "bos_token_id": 1, "eos_token_id": 2, "hidden_size": 32, "intermediate_size": 48, "max_position_embeddings": 256,
            "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 10000,
            "kv_channels": 8, "vocab_size": 128, "use_mup": False, "scale_emb": 12, "dim_model_base": 256, "scale_depth": 1.4,
            "rope_scaling": {"type": "longrope", "long_factor": FACTORS[::-1], "short_factor": FACTORS,
                             "original_max_position_embeddings": 256},
        },
        "patch_size": 2,
        "feat_dim": 6,
        "residual_lm_num_layers": 1,
        "residual_lm_no_rope": True,
        "scalar_quantization_latent_dim": 8,
        "scalar_quantization_scale": 5,
        "encoder_config": {"hidden_dim": 24, "ffn_dim": 32, "num_heads": 4, "num_layers": 2, "kv_channels": 8},
        "dit_config": {"hidden_dim": 24, "ffn_dim": 32, "num_heads": 4, "num_layers": 2, "kv_channels": 8, "cfm_config": {}},
        "audio_vae_config": {},
        "max_length": 128,
        "dtype": "float32",
    }  # fmt: skip
    for name, value in changes.items():
        *path, last = name.split("__")
        target = values
        for part in path:
            target = target[part]
        target[last] = value
    return values


def tiny_model(seed: int = 0, **changes: Any) -> VoxCPM2:
    """A model of `tiny_dict` with random weights."""
    return VoxCPM2.from_config(VoxCPM2Config.from_dict(tiny_dict(**changes)), torch.Generator().manual_seed(seed))
