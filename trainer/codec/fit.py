"""The loop that fits a codec to clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.codec.initialise import initialise_codec
from trainer.codec.losses import mel_distance
from trainer.config import TrainError
from voxcpm.audiovae import AudioVAE


@dataclass(frozen=True)
class CodecFit:
    """How a codec is fitted; see CodecConfig."""

    steps: int = 60
    batch: int = 4
    crop_s: float = 0.96
    lr: float = 1e-3
    waveform_weight: float = 5.0
    kl_weight: float = 1e-3


def fit_codec(
    codec: AudioVAE,
    clips: Sequence[np.ndarray],
    fit: CodecFit,
    seed: int,
    say: Callable[[str], None],
    report: Callable[[int, dict[str, float]], None] | None = None,
    fresh: bool = False,
) -> list[float]:
    """Train on random crops of 16 kHz clips (float32 [S]); returns the loss of every step.

    The loss is the distance of log-mel spectra at four resolutions at 48 kHz (the target is the clip resampled: nothing
    above 8 kHz is asked for), the waveform's, and a light KL that keeps the latents near unit scale, which the model's flow
    starts from. Clips shorter than a crop are padded with silence. The codec is left in evaluation mode without gradients.

    fresh: the codec has random weights, which are first scaled to the clips (see `initialise_codec`). Raises TrainError for no
    clips and for a loss that is no number.
    """
    if not clips:
        raise TrainError("the codec has no clip to be trained on: the corpus has no kept segment with audio")
    dice = np.random.default_rng(seed)
    noise = torch.Generator().manual_seed(seed)
    device = next(codec.parameters()).device
    if fresh:
        some = crops(codec, clips, replace(fit, batch=8), np.random.default_rng([seed, 1]))[0]
        initialise_codec(codec, some.to(device))
    codec.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(codec.parameters(), lr=fit.lr, betas=(0.8, 0.99))
    losses: list[float] = []
    for step in range(fit.steps):
        wav, target = crops(codec, clips, fit, dice)
        parts = reconstruction(codec, wav.to(device), target.to(device), noise)
        loss = parts["mel"] + fit.waveform_weight * parts["waveform"] + fit.kl_weight * parts["kl"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        losses.append(float(loss.detach()))
        if not (np.isfinite(losses[-1]) and torch.isfinite(norm)):
            raise TrainError(f"the codec's loss is no number at step {step + 1}: lower its lr (now {fit.lr:g})")
        optimizer.step()
        if report is not None:
            values = {f"loss/{name}": float(value.detach()) for name, value in parts.items()}
            report(step + 1, values | {"loss/total": losses[-1], "optim/grad_norm": float(norm)})
        if (step + 1) % 20 == 0 or step in (0, fit.steps - 1):
            say(f"  codec step {step + 1}/{fit.steps}: loss {losses[-1]:.3f}")
    codec.requires_grad_(False).eval()
    return losses


def crops(
    codec: AudioVAE, clips: Sequence[np.ndarray], fit: CodecFit, dice: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """(wav [B, S] at the codec's rate, target [B, S'] at its output rate) of random crops of random clips."""
    import soxr

    config = codec.config
    size = max(1, round(fit.crop_s * config.sample_rate / config.hop_length)) * config.hop_length
    chosen = []
    for _ in range(fit.batch):
        clip = clips[int(dice.integers(len(clips)))]
        clip = np.pad(clip, (0, max(0, size - len(clip))))
        start = int(dice.integers(len(clip) - size + 1))
        chosen.append(np.ascontiguousarray(clip[start : start + size], dtype=np.float32))
    length = size // config.hop_length * config.decode_hop
    targets = [soxr.resample(crop, config.sample_rate, config.out_sample_rate) for crop in chosen]
    fitted = [np.pad(target, (0, max(0, length - len(target))))[:length] for target in targets]
    return torch.from_numpy(np.stack(chosen)), torch.from_numpy(np.stack(fitted).astype(np.float32))


def reconstruction(codec: AudioVAE, wav: Tensor, target: Tensor, noise: torch.Generator | None) -> dict[str, Tensor]:
    """`mel`, `waveform` and `kl` of [B, S] through the codec against [B, S']; noise None: the mean latents, no sampling."""
    mu, logvar = codec.encode_heads(wav[:, None])
    logvar = logvar.clamp(-20, 5)
    z = mu
    if noise is not None:
        z = mu + torch.randn(mu.shape, generator=noise).to(mu.device) * (0.5 * logvar).exp()
    out = codec.decode(z)[:, 0]
    return {
        "mel": mel_distance(out, target, codec.config.out_sample_rate),
        "waveform": F.l1_loss(out, target),
        "kl": 0.5 * (mu.square() + logvar.exp() - 1 - logvar).mean(),
    }
