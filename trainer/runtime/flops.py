"""The arithmetic of a training step."""

from __future__ import annotations

from voxcpm.config import TowerConfig, VoxCPM2Config
from voxcpm.roofline import tower_parameters


def training_flops(config: VoxCPM2Config, text: float, patches: float, learnt: float) -> float:
    """Useful floating point operations of a step: forward and backward (3 x 2 a weight and token), nothing recomputed, padded or
    discarded, attention's products left out (below 5 % at these lengths). text, patches, learnt: positions of each kind."""
    tslm, ralm, locenc, locdit = _towers(config)
    hidden, inner, patch = config.lm_config.hidden_size, config.dit_config.hidden_dim, config.patch_size
    latent = config.scalar_quantization_latent_dim
    fused = 2 * hidden * hidden
    a_position = tower_parameters(tslm) + tower_parameters(ralm) + fused
    a_patch = _tower_products(locenc, patch + 1, 1) + config.encoder_config.hidden_dim * hidden + 2 * hidden * latent
    a_learnt = _tower_products(locdit, 2 * patch + 3, patch) + 2 * hidden * inner + hidden * hidden
    return 6.0 * ((text + patches) * a_position + patches * a_patch + learnt * a_learnt)


def _tower_products(tower: TowerConfig, tokens: int, kept: int) -> float:
    """Weights times tokens of a tower of which only `kept` outputs are wanted: its last block asks and answers for no others."""
    block = tower_parameters(tower) / tower.layers
    keys = 2 * tower.hidden * tower.head_dim * tower.kv_heads
    return (tower.layers - 1) * block * tokens + keys * tokens + (block - keys) * kept


def _towers(config: VoxCPM2Config) -> tuple[TowerConfig, TowerConfig, TowerConfig, TowerConfig]:
    return config.tslm, config.ralm, config.locenc, config.locdit
