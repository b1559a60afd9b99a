"""How far reconstructions are from what they should be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from trainer.codec.clips import CodecClip, crops
from trainer.codec.fit import CodecFit
from trainer.codec.losses import mel_distance
from voxcpm.audiovae import AudioVAE

_OTHERS = 8
"""Other clips that each reconstruction is compared with, at most."""


@torch.no_grad()
def held_out_distances(codec: AudioVAE, clips: Sequence[CodecClip], crop_s: float) -> tuple[float, float]:
    """Mean mel distances of fixed crops' reconstructions (from the mean latents): to the crops, and to those of other clips."""
    was_training = codec.training
    codec.eval()
    device, rate = next(codec.parameters()).device, codec.config.out_sample_rate
    one = CodecFit(batch=1, crop_s=crop_s)
    pairs = [crops(codec, [clip], one, np.random.default_rng(index)) for index, clip in enumerate(clips)]
    wanted = torch.cat([pair.target for pair in pairs]).to(device)
    made = torch.cat([codec.decode(codec.encode(p.wav.to(device)), p.rates.to(device))[:, 0] for p in pairs])
    codec.train(was_training)
    shifts = range(1, min(len(clips), _OTHERS + 1))
    other = [float(mel_distance(made, wanted.roll(shift, dims=0), rate)) for shift in shifts]
    return float(mel_distance(made, wanted, rate)), sum(other) / len(other)
