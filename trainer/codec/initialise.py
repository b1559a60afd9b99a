"""Initialization of codecs from scratch, at any width."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor, nn

from voxcpm.audiovae import AudioVAE
from voxcpm.audiovae.layers import CausalConv, CausalUpsample, ResidualUnit

_RESIDUAL = 0.3
"""Standard deviation of a residual unit's branch at the start."""
_POSTERIOR = 0.1
"""Standard deviation of a latent around its mean at the start."""


@torch.no_grad()
def initialise_codec(codec: AudioVAE, wav: Tensor) -> None:
    """Scale every convolution so that its output on `wav` [B, S] (at the codec's rate) has mean 0 and unit variance.

    This is the data-dependent initialization of weight norm (Salimans and Kingma, 2016). With small random weights instead, the
    latents of a narrow codec have no effect after some thirty layers: the codec learns the mean spectrum, and the latents stay
    noise. Latent means start at unit variance, the output at the variance of `wav`.
    """
    targets: dict[nn.Module, float] = {}
    for module in codec.modules():
        if isinstance(module, ResidualUnit):
            targets[module.block[-1]] = _RESIDUAL
    targets[codec.decoder.model[-2]] = max(float(wav.std()), 1e-3)  # type: ignore[index]

    def fit(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        assert isinstance(module, (CausalConv, CausalUpsample))
        mean = output.mean(dim=(0, 2)) if module.bias is not None else output.new_zeros(output.shape[1])
        centered = output - mean[:, None]
        scale = targets.get(module, 1.0) / max(float(centered.std()), 1e-6)
        module.weight_g.mul_(scale)
        if module.bias is not None:
            module.bias.sub_(mean).mul_(scale)
        return centered * scale

    convolutions = [m for m in codec.modules() if isinstance(m, (CausalConv, CausalUpsample))]
    handles = [module.register_forward_hook(fit) for module in convolutions]
    try:
        mu, _ = codec.encode_heads(wav[:, None])
        codec.decode(mu)
    finally:
        for handle in handles:
            handle.remove()
    variance = codec.encoder.fc_logvar
    assert isinstance(variance, CausalConv) and variance.bias is not None
    variance.weight_g.mul_(0.1)
    variance.bias.fill_(2 * log(_POSTERIOR))
