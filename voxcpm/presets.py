"""Model configurations by size: the released models, to build them without their files, and small ones to train from scratch.

If a checkpoint has a config.json, that is always used. Of the LongRoPE factors, only the first eight and the last are known
here. The others are interpolated in the logarithm, which changes no shape. To load released weights, use the released config.
"""

from __future__ import annotations

from math import exp, log
from typing import Any

from voxcpm.config import VoxCPM2Config

_FIRST_FACTORS = (
    0.9977997200264581, 1.014658295992452, 1.0349680404997148, 1.059429246056193,
    1.0888815016813513, 1.1243301355211495, 1.166977103606075, 1.2182568066927284,
)  # fmt: skip
_LAST_FACTOR = 31.02392307921529


def rope_factors(count: int = 64) -> list[float]:
    """Return the LongRoPE factors: eight known, the rest interpolated, one known."""
    start, end, between = log(_FIRST_FACTORS[-1]), log(_LAST_FACTOR), count - len(_FIRST_FACTORS) - 1
    middle = [exp(start + (end - start) * (i + 1) / (between + 1)) for i in range(between)]
    return [*_FIRST_FACTORS, *middle, _LAST_FACTOR]


PUBLISHED = ("openbmb/VoxCPM2", "openbmb/VoxCPM1.5", "openbmb/VoxCPM-0.5B")
"""Hub ids of the released models."""


def published_dict(hub_id: str = PUBLISHED[0]) -> dict[str, Any]:
    """Return the content of a released model's config.json (for rope_scaling see the module docstring)."""
    return {PUBLISHED[0]: _second, PUBLISHED[1]: _first_long, PUBLISHED[2]: _first}[hub_id]()


def published_config(hub_id: str = PUBLISHED[0]) -> VoxCPM2Config:
    """Return a released model's config."""
    return VoxCPM2Config.from_dict(published_dict(hub_id))


def _first(patch: int = 2, ralm: int = 6, local: int = 4) -> dict[str, Any]:
    """VoxCPM 0.5B: a TSLM of 24 layers with the codec of the architecture's defaults."""
    values = _second()
    factors = rope_factors(32)
    widths = {"hidden_dim": 1024, "ffn_dim": 4096, "num_heads": 16, "num_layers": local}
    values["lm_config"] |= {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "kv_channels": None,
    }
    values["lm_config"]["rope_scaling"] |= {"long_factor": factors, "short_factor": factors}
    return values | {
        "architecture": "voxcpm",
        "patch_size": patch,
        "residual_lm_num_layers": ralm,
        "residual_lm_no_rope": False,
        "scalar_quantization_latent_dim": 256,
        "encoder_config": widths,
        "dit_config": {**widths, "cfm_config": values["dit_config"]["cfm_config"]},
        "audio_vae_config": None,
        "max_length": 4096,
    }


def _first_long() -> dict[str, Any]:
    """VoxCPM1.5: patches of four frames, deeper local towers, and a codec of 44.1 kHz."""
    codec = {"encoder_dim": 64, "encoder_rates": [2, 3, 6, 7, 7], "latent_dim": 64, "decoder_dim": 2048}
    codec |= {"decoder_rates": [7, 7, 6, 3, 2], "sample_rate": 44100}
    return _first(patch=4, ralm=8, local=8) | {"audio_vae_config": codec}


def _second() -> dict[str, Any]:
    """VoxCPM2."""
    local = {"hidden_dim": 1024, "ffn_dim": 4096, "num_heads": 16, "num_layers": 12, "kv_channels": 128}
    factors = rope_factors()
    return {
        "architecture": "voxcpm2",
        "lm_config": {
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "max_position_embeddings": 32768,
            "num_attention_heads": 16,
            "num_hidden_layers": 28,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000,
            "kv_channels": 128,
            "rope_scaling": {
                "type": "longrope",
                "long_factor": factors,
                "short_factor": factors,
                "original_max_position_embeddings": 32768,
            },
            "vocab_size": 73448,
            "use_mup": False,
            "scale_emb": 12,
            "dim_model_base": 256,
            "scale_depth": 1.4,
        },
        "patch_size": 4,
        "feat_dim": 64,
        "scalar_quantization_latent_dim": 512,
        "scalar_quantization_scale": 9,
        "residual_lm_num_layers": 8,
        "residual_lm_no_rope": True,
        "encoder_config": dict(local),
        "dit_config": {
            **local,
            "mean_mode": False,
            "cfm_config": {
                "sigma_min": 1e-6,
                "solver": "euler",
                "t_scheduler": "log-norm",
                "inference_cfg_rate": 2.0,
            },
        },
        "audio_vae_config": {
            "encoder_dim": 128,
            "encoder_rates": [2, 5, 8, 8],
            "latent_dim": 64,
            "decoder_dim": 2048,
            "decoder_rates": [8, 6, 5, 2, 2, 2],
            "sr_bin_boundaries": [20000, 30000, 40000],
            "sample_rate": 16000,
            "out_sample_rate": 48000,
        },
        "max_length": 8192,
        "device": "cuda",
        "dtype": "bfloat16",
    }


_TOWERS: dict[str, dict[str, Any]] = {
    # About 1.5 million parameters: too small to learn anything, but runs anywhere in seconds.
    "toy": {"hidden": 128, "ffn": 256, "heads": 4, "layers": 2, "local": 96, "local_ffn": 192, "codec": (8, 128)},
    # About 30 million parameters: enough to overfit a few sentences.
    "small": {"hidden": 384, "ffn": 1024, "heads": 6, "layers": 6, "local": 256, "local_ffn": 768, "codec": (24, 384)},
}


def config_dict(size: str, vocabulary: int) -> dict[str, Any]:
    """Return the content of a config.json of a size: toy, small, or 2b (the released model).

    All towers of a model have heads of the same width, because they share rotary tables.
    """
    if size == "2b":
        released = published_dict()
        released["lm_config"]["vocab_size"] = vocabulary
        return released
    widths = _TOWERS[size]
    head = widths["hidden"] // widths["heads"]
    encoder_dim, decoder_dim = widths["codec"]
    local = {
        "hidden_dim": widths["local"],
        "ffn_dim": widths["local_ffn"],
        "num_heads": widths["heads"],
        "num_layers": widths["layers"],
        "kv_channels": head,
    }
    factors = [1.0] * (head // 2)
    return {
        "architecture": "voxcpm2",
        "lm_config": {
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_size": widths["hidden"],
            "intermediate_size": widths["ffn"],
            "max_position_embeddings": 8192,
            "num_attention_heads": widths["heads"],
            "num_hidden_layers": widths["layers"],
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000,
            "kv_channels": head,
            "rope_scaling": {
                "type": "longrope",
                "long_factor": factors,
                "short_factor": factors,
                "original_max_position_embeddings": 8192,
            },
            "vocab_size": vocabulary,
            "use_mup": False,
            "scale_emb": 12,
            "dim_model_base": 256,
            "scale_depth": 1.4,
        },
        "patch_size": 4,
        "feat_dim": 64,
        "scalar_quantization_latent_dim": widths["hidden"] // 4,
        "scalar_quantization_scale": 9,
        "residual_lm_num_layers": max(1, widths["layers"] // 2),
        "residual_lm_no_rope": True,
        "encoder_config": local,
        "dit_config": {**local, "cfm_config": {"sigma_min": 1e-6, "solver": "euler", "t_scheduler": "log-norm"}},
        "audio_vae_config": {
            "encoder_dim": encoder_dim,
            "encoder_rates": [2, 5, 8, 8],
            "latent_dim": 64,
            "decoder_dim": decoder_dim,
            "decoder_rates": [8, 6, 5, 2, 2, 2],
            "sr_bin_boundaries": [20000, 30000, 40000],
            "sample_rate": 16000,
            "out_sample_rate": 48000,
        },
        "max_length": 4096,
        "device": "cuda",
        "dtype": "float32",
    }
