"""Widths of models that are trained from scratch, as config.json spells them."""

from __future__ import annotations

from typing import Any

_TOWERS: dict[str, dict[str, Any]] = {
    # Some 1.5 million parameters: learns nothing, runs everywhere, in seconds.
    "toy": {"hidden": 128, "ffn": 256, "heads": 4, "layers": 2, "local": 96, "local_ffn": 192, "codec": (8, 128)},
    # Some 30 million: enough to learn a handful of sentences by heart.
    "small": {"hidden": 384, "ffn": 1024, "heads": 6, "layers": 6, "local": 256, "local_ffn": 768, "codec": (24, 384)},
}


def config_dict(size: str, vocabulary: int) -> dict[str, Any]:
    """A config.json of a size: toy, small, or 2b (the released model's). Heads are equally wide in all towers of one: they
    share rotary tables."""
    if size == "2b":
        from voxcpm.presets import published_dict

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
