"""The number of floating point operations of a training step."""

from __future__ import annotations

from voxcpm.config import TowerConfig, VoxCPM2Config
from voxcpm.kernels.roofline import tower_parameters


def training_flops(config: VoxCPM2Config, text: float, patches: float, learnt: float) -> float:
    """Return the useful floating point operations of a step. text, patches, learnt: positions of each kind."""
    position, patch, target = flops_each(config)
    return (text + patches) * position + patches * patch + learnt * target


def flops_each(config: VoxCPM2Config) -> tuple[float, float, float]:
    """Return the useful floating point operations per position, in addition per patch, and in addition per target patch.

    Forward and backward (3 x 2 per weight and token). Not counted: recomputed, padded or discarded values, and the products of
    attention (below 5 % at these lengths).
    """
    tslm, ralm, locenc, locdit = _towers(config)
    hidden, inner, patch = config.lm_config.hidden_size, config.dit_config.hidden_dim, config.patch_size
    latent = config.scalar_quantization_latent_dim
    fused = 2 * hidden * hidden
    a_position = tower_parameters(tslm) + tower_parameters(ralm) + fused
    a_patch = _tower_products(locenc, patch + 1, 1) + config.encoder_config.hidden_dim * hidden + 2 * hidden * latent
    a_learnt = _tower_products(locdit, 2 * patch + 3, patch) + 2 * hidden * inner + hidden * hidden
    return 6.0 * a_position, 6.0 * a_patch, 6.0 * a_learnt


def _tower_products(tower: TowerConfig, tokens: int, kept: int) -> float:
    """Return weights times tokens of a tower of which only `kept` outputs are used: its last block needs keys and values for all
    tokens, the rest only for these."""
    block = tower_parameters(tower) / tower.layers
    keys = 2 * tower.hidden * tower.head_dim * tower.kv_heads
    return (tower.layers - 1) * block * tokens + keys * tokens + (block - keys) * kept


def _towers(config: VoxCPM2Config) -> tuple[TowerConfig, TowerConfig, TowerConfig, TowerConfig]:
    return config.tslm, config.ralm, config.locenc, config.locdit
