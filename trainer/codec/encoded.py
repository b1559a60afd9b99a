"""Clips whose latents are made once: for training a decoder alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.codec.clips import CodecClip, as_clip, at_input_rate, resampled
from trainer.codec.losses import mel_distance
from voxcpm.audiovae import AudioVAE

if TYPE_CHECKING:
    from trainer.codec.fit import CodecFit


@dataclass(frozen=True)
class EncodedClips:
    """What the encoder, which does not change, makes of each clip: mean and log variance [D, F]; the wave [F * decode_hop] that
    is to come out, and the rate (Hz) whose bandwidth it has."""

    means: list[Tensor]
    log_variances: list[Tensor]
    targets: list[Tensor]
    rates: list[int]

    @classmethod
    @torch.no_grad()
    def make(cls, codec: AudioVAE, clips: Sequence[CodecClip | np.ndarray]) -> EncodedClips:
        """From clips (arrays: at the codec's input rate), encoded whole as for a model that is trained on them."""
        config = codec.config
        device = next(codec.parameters()).device
        means, variances, targets, rates = [], [], [], []
        for given in clips:
            clip = as_clip(given, config.sample_rate)
            heard = torch.from_numpy(at_input_rate(clip, config.sample_rate))
            mu, logvar = codec.encode_heads(heard[None, None].to(device))
            wave = resampled(clip.samples, clip.rate, config.out_sample_rate)
            length = mu.shape[2] * config.decode_hop
            means.append(mu[0])
            variances.append(logvar[0].clamp(-20, 5))
            targets.append(torch.from_numpy(np.pad(wave, (0, max(0, length - len(wave))))[:length]).to(device))
            rates.append(min(clip.rate, config.out_sample_rate))
        return cls(means, variances, targets, rates)

    def reconstruction(
        self, codec: AudioVAE, fit: CodecFit, dice: np.random.Generator, noise: torch.Generator
    ) -> dict[str, Tensor]:
        """`mel`, `waveform` and `kl` of a batch of random crops of random clips, which begin and end with a latent frame; with
        the waves as `out` and `target` [B, S]."""
        config = codec.config
        frames = max(1, round(fit.crop_s * config.sample_rate / config.hop_length))
        latents, targets, divergence, rates = [], [], [], []
        for _ in range(fit.batch):
            index = int(dice.integers(len(self.means)))
            mu, logvar, wave = self.means[index], self.log_variances[index], self.targets[index]
            start = int(dice.integers(max(1, mu.shape[1] - frames + 1)))
            mu, logvar = mu[:, start : start + frames], logvar[:, start : start + frames]
            z = mu + torch.randn(mu.shape, generator=noise).to(mu.device) * (0.5 * logvar).exp()
            wave = wave[start * config.decode_hop : (start + frames) * config.decode_hop]
            missing = frames - mu.shape[1]
            latents.append(F.pad(z, (0, missing)))
            targets.append(F.pad(wave, (0, missing * config.decode_hop)))
            rates.append(self.rates[index])
            divergence.append(0.5 * (mu.square() + logvar.exp() - 1 - logvar).mean())
        target = torch.stack(targets)
        out = codec.decode(torch.stack(latents), torch.tensor(rates, device=target.device))[:, 0]
        return {
            "mel": mel_distance(out, target, config.out_sample_rate, fit.floor_db),
            "waveform": F.l1_loss(out, target),
            "kl": torch.stack(divergence).mean(),
            "out": out,
            "target": target,
        }
