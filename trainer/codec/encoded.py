"""Clips with their latents, for training only a decoder. The encoder does not change, so that latents can be reused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.codec.clips import CodecClip, as_clip, at_input_rate, draw_bandwidth, draw_clip, resampled
from trainer.codec.losses import mel_distance
from trainer.data.latent_cache import Recent
from voxcpm.audiovae import AudioVAE

if TYPE_CHECKING:
    from trainer.codec.config import CodecFit


class EncodedClip(NamedTuple):
    """The encoder's output for a clip, on the codec's device, and the target, on the CPU."""

    mean: Tensor  #: [D, F]
    log_variance: Tensor  #: [D, F]
    target: np.ndarray  #: float32 [F * decode_hop]
    rate: int  #: Hz of the clip

    @property
    def nbytes(self) -> int:
        """Size of all parts in bytes."""
        return 2 * self.mean.nbytes + self.target.nbytes


@dataclass(frozen=True)
class EncodedCrops:
    """A batch of crops that begin and end with a latent frame. Clips shorter than a crop give shorter crops."""

    means: list[Tensor]  #: [D, F] each
    log_variances: list[Tensor]
    targets: Tensor  #: float32 [B, S], padded with silence
    rates: Tensor  #: int64 [B], Hz


class EncodedClips:
    """Clips that are encoded when they are drawn; the last ones drawn stay in memory."""

    def __init__(self, codec: AudioVAE, clips: Sequence[CodecClip | np.ndarray], memory_bytes: float) -> None:
        """clips: arrays are at the codec's input rate. memory_bytes: maximum size of the latents and targets in memory."""
        self._codec, self._clips = codec, clips
        self._recent: Recent[EncodedClip] = Recent(memory_bytes, lambda clip: clip.nbytes)

    def crops(self, fit: CodecFit, dice: np.random.Generator) -> EncodedCrops:
        """Draw random crops of random clips; for a share `fit.narrowed` the target is cut to a lower bandwidth."""
        config = self._codec.config
        frames, hop = frames_of_crop(self._codec, fit.crop_s), config.decode_hop
        means, variances, targets, rates = [], [], [], []
        for _ in range(fit.batch):
            clip = draw_clip(len(self._clips), self._get, dice)
            start = int(dice.integers(max(1, clip.mean.shape[1] - frames + 1)))
            rate = draw_bandwidth(self._codec, clip.rate, fit.narrowed, dice)
            wave = clip.target[start * hop : (start + frames) * hop]
            if rate < min(clip.rate, config.out_sample_rate):
                narrow = resampled(wave, config.out_sample_rate, rate)
                wave = resampled(narrow, rate, config.out_sample_rate)
            means.append(clip.mean[:, start : start + frames])
            variances.append(clip.log_variance[:, start : start + frames])
            targets.append(np.pad(wave, (0, max(0, frames * hop - len(wave))))[: frames * hop])
            rates.append(rate)
        return EncodedCrops(means, variances, torch.from_numpy(np.stack(targets)), torch.tensor(rates))

    def _get(self, index: int) -> EncodedClip:
        return self._recent.get(index, lambda: self._encoded(index))

    @torch.no_grad()
    def _encoded(self, index: int) -> EncodedClip:
        """Encode one whole clip, as it is encoded for training a model."""
        codec, config = self._codec, self._codec.config
        clip = as_clip(self._clips[index], config.sample_rate)
        heard = torch.from_numpy(at_input_rate(clip, config.sample_rate))
        mu, logvar = codec.encode_heads(heard[None, None].to(next(codec.parameters()).device))
        wave = resampled(clip.samples, clip.rate, config.out_sample_rate)
        length = mu.shape[2] * config.decode_hop
        target = np.pad(wave, (0, max(0, length - len(wave))))[:length]
        return EncodedClip(mu[0], logvar[0].clamp(-20, 5), target, clip.rate)


def frames_of_crop(codec: AudioVAE, crop_s: float) -> int:
    """Return the number of latent frames of a crop of `crop_s` seconds."""
    return max(1, round(crop_s * codec.config.sample_rate / codec.config.hop_length))


def decoder_reconstruction(
    codec: AudioVAE, batch: EncodedCrops, fit: CodecFit, noise: torch.Generator
) -> dict[str, Tensor]:
    """Return `mel`, `waveform` and `kl` of a batch, with the waves as `out` and `target` [B, S]."""
    config = codec.config
    frames = frames_of_crop(codec, fit.crop_s)
    latents, divergence = [], []
    for mu, logvar in zip(batch.means, batch.log_variances, strict=True):
        z = mu + torch.randn(mu.shape, generator=noise).to(mu.device) * (0.5 * logvar).exp()
        latents.append(F.pad(z, (0, frames - mu.shape[1])))
        divergence.append(0.5 * (mu.square() + logvar.exp() - 1 - logvar).mean())
    target = batch.targets.to(latents[0].device)
    out = codec.decode(torch.stack(latents), batch.rates.to(target.device))[:, 0]
    return {
        "mel": mel_distance(out, target, config.out_sample_rate, fit.floor_db),
        "waveform": F.l1_loss(out, target),
        "kl": torch.stack(divergence).mean(),
        "out": out,
        "target": target,
    }
