"""Waveform to latents, trainable form."""

from __future__ import annotations

from torch import Tensor, nn

from voxcpm.audiovae.config import RESIDUAL_DILATIONS, RESIDUAL_KERNEL, AudioVAEConfig
from voxcpm.audiovae.layers import CausalConv, ResidualUnit, Snake
from voxcpm.audiovae.state import Histories


class EncoderStage(nn.Module):
    """Three residual units, then a strided convolution that doubles the width."""

    def __init__(self, channels: int, stride: int, depthwise: bool, padding: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            [
                *(ResidualUnit(channels, dilation, depthwise) for dilation in RESIDUAL_DILATIONS),
                Snake(channels),
                CausalConv(channels, 2 * channels, 2 * stride, stride=stride, padding=padding),
            ]
        )

    def forward(self, x: Tensor, histories: Histories) -> Tensor:
        """[B, C, T] -> [B, 2C, T / stride]."""
        *units, snake, downsample = self.block
        for unit in units:
            x = unit(x, histories)
        y: Tensor = downsample(snake(x), histories)
        return y


class Encoder(nn.Module):
    """Convolution 1 -> encoder_dim, one stage per rate, and two heads: mean and log variance of the latent."""

    def __init__(self, config: AudioVAEConfig) -> None:
        super().__init__()
        channels = config.encoder_dim
        layers: list[nn.Module] = [CausalConv(1, channels, RESIDUAL_KERNEL)]
        for stride in config.encoder_rates:
            layers.append(EncoderStage(channels, stride, config.depthwise, config.stride_padding(stride)))
            channels *= 2
        self.fc_mu = CausalConv(channels, config.latent_dim, 3)
        self.fc_logvar = CausalConv(channels, config.latent_dim, 3)
        self.block = nn.ModuleList(layers)

    def forward(self, wav: Tensor, histories: Histories) -> Tensor:
        """[B, 1, S] -> mean [B, D, S / hop_length]."""
        mu: Tensor = self.fc_mu(self._trunk(wav, histories), histories)
        return mu

    def heads(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 1, S] -> (mean, log variance), both [B, D, S / hop_length], from zero histories."""
        trunk = self._trunk(wav, Histories())
        return self.fc_mu(trunk, Histories()), self.fc_logvar(trunk, Histories())

    def _trunk(self, x: Tensor, histories: Histories) -> Tensor:
        for layer in self.block:
            x = layer(x, histories)
        return x
