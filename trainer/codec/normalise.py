"""Rescale a trained codec so that its latents have unit scale."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from voxcpm.audiovae import AudioVAE
from voxcpm.audiovae.layers import CausalConv

_LEAST_SCALE = 1e-3
"""Smallest scale of a channel, relative to the widest one. A narrower channel is noise and must not be amplified further."""


@torch.no_grad()
def normalise_latents(codec: AudioVAE, clips: Iterable[np.ndarray]) -> None:
    """Give every latent channel mean 0 and variance 1 over 16 kHz clips (float32 [S]); what is decoded stays the same.

    The encoder's heads compute z' = (z - m) / s, and the decoder's first convolution decodes from s z' + m. The first frames
    differ a little: a causal convolution is padded with latents of 0, which now stand for the mean.
    """
    device = next(codec.parameters()).device
    latents = torch.cat([codec.encode(torch.from_numpy(clip)[None, None].to(device))[0] for clip in clips], dim=1)
    mean, scale = latents.mean(dim=1), latents.std(dim=1)
    scale = scale.clamp_min(_LEAST_SCALE * float(scale.max()))
    mu, logvar = codec.encoder.fc_mu, codec.encoder.fc_logvar
    first = codec.decoder.model[0]  # type: ignore[index]
    assert isinstance(mu, CausalConv) and isinstance(logvar, CausalConv) and isinstance(first, CausalConv)
    assert mu.bias is not None and logvar.bias is not None and first.bias is not None
    mu.bias.sub_(mean)
    mu.bias.div_(scale)
    mu.weight_g.div_(scale.view(-1, 1, 1))
    logvar.bias.sub_(2 * scale.log())
    weight = first.weight().clone()
    if first.groups == 1:
        first.bias.add_((weight.sum(dim=2) * mean).sum(dim=1))
        weight.mul_(scale.view(1, -1, 1))
    else:
        first.bias.add_(weight.sum(dim=(1, 2)) * mean)
        weight.mul_(scale.view(-1, 1, 1))
    first.weight_v.copy_(weight)
    first.weight_g.copy_(torch.linalg.vector_norm(weight, dim=(1, 2), keepdim=True))
