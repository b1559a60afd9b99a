"""A codec for models from scratch: AudioVAE trained just enough that its latents carry the audio."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from voxcpm.audiovae import AudioVAE

_FFTS = (256, 512, 1024, 2048)
_KL = 1e-3


def train_codec(
    codec: AudioVAE, clips: list[np.ndarray], steps: int, seed: int, say: Callable[[str], None], seconds: float = 0.96
) -> list[float]:
    """Train on random crops of 16 kHz clips (float32 [S]); returns the loss of every step.

    The loss is the distance of log spectra at four resolutions at 48 kHz (the target is the clip resampled: nothing above
    8 kHz is asked for), the waveform's, and a light KL that keeps the latents near unit scale, which the flow of the model
    starts from. No adversary: this is the toy; the full recipe has its own command.
    """
    import soxr

    dice = np.random.default_rng(seed)
    noise = torch.Generator().manual_seed(seed)
    size = round(seconds * codec.config.sample_rate / codec.config.hop_length) * codec.config.hop_length
    scale = codec.config.out_sample_rate // codec.config.sample_rate
    usable = [clip for clip in clips if len(clip) >= size]
    if not usable:
        return []
    optimizer = torch.optim.AdamW(codec.parameters(), lr=1e-3, betas=(0.8, 0.99))
    losses = []
    codec.train()
    for step in range(steps):
        crops = []
        for _ in range(4):
            clip = usable[int(dice.integers(len(usable)))]
            start = int(dice.integers(len(clip) - size + 1))
            crops.append(clip[start : start + size])
        wav = torch.from_numpy(np.stack(crops))
        target = torch.from_numpy(
            np.stack([soxr.resample(crop, codec.config.sample_rate, codec.config.out_sample_rate) for crop in crops])
        )[:, : size * scale]
        mu, logvar = codec.encode_heads(wav[:, None])
        z = mu + torch.randn(mu.shape, generator=noise) * (0.5 * logvar.clamp(-20, 5)).exp()
        out = codec.decode(z)[:, 0, : target.shape[1]]
        kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).mean()
        loss = spectral_distance(out, target) + 5 * F.l1_loss(out, target) + _KL * kl
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        if step % 20 == 0 or step == steps - 1:
            say(f"  codec step {step + 1}/{steps}: loss {losses[-1]:.3f}")
    codec.eval()
    return losses


def spectral_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean distance of log magnitudes over four window sizes; a, b: float32 [B, S]."""
    total = a.new_zeros(())
    for size in _FFTS:
        window = torch.hann_window(size, device=a.device)
        spectra = [
            torch.stft(x, size, size // 4, window=window, return_complex=True).abs().clamp_min(1e-4).log()
            for x in (a, b)
        ]
        total = total + F.l1_loss(spectra[0], spectra[1])
    return total / len(_FFTS)
