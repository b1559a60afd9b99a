"""Latents to waveform, trainable form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from voxcpm.audiovae.config import RESIDUAL_DILATIONS, RESIDUAL_KERNEL, AudioVAEConfig
from voxcpm.audiovae.layers import CausalConv, CausalUpsample, NoiseBlock, RateCondition, ResidualUnit, Snake
from voxcpm.audiovae.state import Histories


class DecoderStage(nn.Module):
    """Snake, a transposed convolution that halves the width, an optional noise block, three residual units."""

    def __init__(self, channels: int, stride: int, depthwise: bool, noise: bool) -> None:
        super().__init__()
        half = channels // 2
        self.block = nn.ModuleList(
            [
                Snake(channels),
                CausalUpsample(channels, half, stride),
                *([NoiseBlock(half)] if noise else []),
                *(ResidualUnit(half, dilation, depthwise) for dilation in RESIDUAL_DILATIONS),
            ]
        )

    def forward(self, x: Tensor, histories: Histories) -> Tensor:
        """[B, C, T] -> [B, C / 2, T * stride]."""
        snake, *layers = self.block
        x = snake(x)
        for layer in layers:
            x = layer(x, histories)
        return x


class Decoder(nn.Module):
    """Entry convolution, one stage per rate (conditioned on the output bandwidth), snake, convolution to one channel, tanh."""

    sr_bin_boundaries: Tensor

    def __init__(self, config: AudioVAEConfig) -> None:
        super().__init__()
        width, latent = config.decoder_dim, config.latent_dim
        layers: list[nn.Module]
        if config.depthwise:
            layers = [CausalConv(latent, latent, RESIDUAL_KERNEL, groups=latent), CausalConv(latent, width, 1)]
        else:
            layers = [CausalConv(latent, width, RESIDUAL_KERNEL)]
        conditions: dict[str, nn.Module] = {}
        buckets = 0 if config.sr_bin_boundaries is None else len(config.sr_bin_boundaries) + 1
        for stride in config.decoder_rates:
            if buckets:
                conditions[str(len(layers))] = RateCondition(
                    width, buckets, config.cond_type, config.cond_dim, config.cond_out_layer
                )
            layers.append(DecoderStage(width, stride, config.depthwise, config.use_noise_block))
            width //= 2
        self.model = nn.ModuleList([*layers, Snake(width), CausalConv(width, 1, RESIDUAL_KERNEL), nn.Tanh()])
        # Keyed by the index of the stage in `model`, as in the checkpoint.
        self.sr_cond_model = nn.ModuleDict(conditions) if conditions else None
        if config.sr_bin_boundaries is not None:
            self.register_buffer("sr_bin_boundaries", torch.tensor(config.sr_bin_boundaries, dtype=torch.int32))

    def forward(self, z: Tensor, bucket: Tensor | None, histories: Histories) -> Tensor:
        """[B, D, F] and bucket indices [B] or [1] -> [B, 1, F * decode_hop] in (-1, 1)."""
        x = z
        for index, layer in enumerate(self.model):
            if self.sr_cond_model is not None and str(index) in self.sr_cond_model:
                x = self.sr_cond_model[str(index)](x, bucket, histories)
            x = layer(x) if isinstance(layer, (Snake, nn.Tanh)) else layer(x, histories)
        return x
