"""The loop that fits a codec to clips."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.codec.batches import Batches
from trainer.codec.clips import CodecClip, Crops, crops
from trainer.codec.encoded import EncodedClips, EncodedCrops, decoder_reconstruction
from trainer.codec.initialise import initialise_codec
from trainer.codec.losses import FLOOR_DB, mel_distance
from trainer.config import TrainError
from trainer.runtime.stop_signal import never
from voxcpm.audiovae import AudioVAE

if TYPE_CHECKING:
    from trainer.codec.adversary import Adversary
from trainer.codec.config import CodecFit

log = logging.getLogger(__name__)

_SNAKE_SHARE = 0.1
"""Share of the learning rate that Snake's frequencies are trained with."""


class CodecTrainer:
    """A codec with its optimizer, its adversary and its RNGs. `state_dict` holds everything that later steps depend on."""

    def __init__(
        self,
        codec: AudioVAE,
        clips: Sequence[CodecClip | np.ndarray],
        fit: CodecFit,
        seed: int,
        fresh: bool = False,
        memory_bytes: float = 4e9,
    ) -> None:
        """fresh: the codec has random weights, which are first scaled to the clips (see `initialise_codec`).

        memory_bytes: maximum size of the latents and targets in memory if only the decoder is trained.
        """
        if not clips:
            raise TrainError("the codec has no clip to be trained on: the corpus has no kept segment with audio")
        self.codec, self.fit = codec, fit
        self._device = next(codec.parameters()).device
        self._noise = torch.Generator().manual_seed(seed)
        if fresh:
            some = crops(codec, clips, replace(fit, batch=8), np.random.default_rng([seed, 1]))
            initialise_codec(codec, some.wav.to(self._device))
        codec.requires_grad_(True).train()
        encoded: EncodedClips | None = None
        if fit.decoder_only:
            codec.encoder.requires_grad_(False)
            encoded = EncodedClips(codec, clips, memory_bytes)

        def make(dice: np.random.Generator) -> Crops | EncodedCrops:
            return crops(codec, clips, fit, dice) if encoded is None else encoded.crops(fit, dice)

        self._batches = Batches(make, seed)
        self._optimizer = make_codec_optimizer(codec, fit.lr)
        self._trained = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        self._adversary: Adversary | None = None
        if fit.adversary is not None:
            from trainer.codec.adversary import Adversary

            self._adversary = Adversary(fit.adversary.width, fit.adversary.lr, self._device, seed)
        self.taken = 0

    def step(self) -> dict[str, float]:
        """Take one step; return its metrics. Raises TrainError if the loss is NaN or infinite."""
        fit, parts = self.fit, self._reconstruction()
        out, target = parts.pop("out"), parts.pop("target")
        loss = parts["mel"] + fit.waveform_weight * parts["waveform"] + fit.kl_weight * parts["kl"]
        values: dict[str, float] = {}
        if fit.adversary is not None and self._adversary is not None and self.taken >= fit.adversary.start:
            values["loss/discriminators"] = float(self._adversary.learn(target, out, fit.rate(self.taken)))
            parts |= self._adversary.judge(target, out)
            loss = loss + fit.adversary.weight * parts["adversarial"] + fit.adversary.features * parts["features"]
        for group in self._optimizer.param_groups:
            group["lr"] = fit.lr * fit.rate(self.taken) * group["share"]
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
        total = float(loss.detach())
        if not (np.isfinite(total) and torch.isfinite(norm)):
            raise TrainError(
                f"the codec's loss is NaN or infinite at step {self.taken + 1}: lower its lr (now {fit.lr:g})"
            )
        self._optimizer.step()
        self.taken += 1
        values |= {f"loss/{name}": float(value.detach()) for name, value in parts.items()}
        return values | {"loss/total": total, "optim/grad_norm": float(norm)}

    def state_dict(self) -> dict[str, Any]:
        """Return the weights, the optimizers' states and the RNG states."""
        return {
            "taken": self.taken,
            "codec": self.codec.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "adversary": None if self._adversary is None else self._adversary.state_dict(),
            "dice": dict(self._batches.state),
            "noise": self._noise.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state_dict`, exactly."""
        self.taken = state["taken"]
        self.codec.load_state_dict(state["codec"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._adversary is not None:
            self._adversary.load_state_dict(state["adversary"])
        self._batches.seek(state["dice"])
        self._noise.set_state(state["noise"])

    def close(self) -> None:
        """End the background thread; no step can follow."""
        self._batches.close()

    def _reconstruction(self) -> dict[str, Tensor]:
        batch = self._batches.draw()
        if isinstance(batch, EncodedCrops):
            return decoder_reconstruction(self.codec, batch, self.fit, self._noise)
        wav, target, rates = (value.to(self._device) for value in batch)
        return reconstruction(self.codec, wav, target, self._noise, self.fit.floor_db, rates)


def fit_codec(
    codec: AudioVAE,
    clips: Sequence[CodecClip | np.ndarray],
    fit: CodecFit,
    seed: int,
    report: Callable[[int, dict[str, float]], None] | None = None,
    fresh: bool = False,
) -> list[float]:
    """Train on random crops of clips (arrays: float32 [S] at 16 kHz); return the loss of every step.

    The loss adds the distance of log-mel spectra at four resolutions, the distance of the waveforms, and a small KL term. The KL
    term keeps the latents near unit scale, the scale of the noise that the model's flow starts from. With `fit.adversary` the
    discriminators' losses are added. The codec is left in evaluation mode without gradients.

    fresh: the codec has random weights (see `CodecTrainer`). Raises TrainError without clips, or if a loss is NaN or infinite.
    """
    trainer = CodecTrainer(codec, clips, fit, seed, fresh)
    try:
        losses = run_steps(trainer, report)
    finally:
        trainer.close()
    codec.requires_grad_(False).eval()
    return losses


def run_steps(
    trainer: CodecTrainer,
    report: Callable[[int, dict[str, float]], None] | None = None,
    asked_to_stop: Callable[[], bool] = never,
) -> list[float]:
    """Take the remaining steps, or those until it is asked to stop; return their losses."""
    losses, steps = [], trainer.fit.steps
    while trainer.taken < steps and not asked_to_stop():
        values = trainer.step()
        losses.append(values["loss/total"])
        if report is not None:
            report(trainer.taken, values)
        if trainer.taken % 20 == 0 or trainer.taken in (1, steps):
            log.info(f"  codec step {trainer.taken}/{steps}: loss {losses[-1]:.3f}")
    return losses


def make_codec_optimizer(module: nn.Module, lr: float) -> torch.optim.AdamW:
    """Return AdamW over the trained parameters; Snake's frequencies have a tenth of the learning rate.

    Snake is x + sin(a x)^2 / a with a = 1 at the start. At the weights' learning rate, some a approach 0 within a few hundred
    steps, where 1 / a explodes. Each group's rate is `lr` times its `share`.
    """
    groups: dict[float, list[nn.Parameter]] = {1.0: [], _SNAKE_SHARE: []}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups[_SNAKE_SHARE if name.endswith("alpha") else 1.0].append(parameter)
    chosen = [{"params": found, "lr": lr * share, "share": share} for share, found in groups.items() if found]
    return torch.optim.AdamW(chosen, lr=lr, betas=(0.8, 0.99))


def reconstruction(
    codec: AudioVAE,
    wav: Tensor,
    target: Tensor,
    noise: torch.Generator | None,
    floor_db: float = FLOOR_DB,
    rates: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return `mel`, `waveform` and `kl` of [B, S] through the codec against [B, S'], with both waves as `out` and `target`.

    noise: None decodes the mean latents, without sampling. rates: the bandwidth requested of each output, as a sample rate in Hz.
    """
    mu, logvar = codec.encode_heads(wav[:, None])
    logvar = logvar.clamp(-20, 5)
    z = mu
    if noise is not None:
        z = mu + torch.randn(mu.shape, generator=noise).to(mu.device) * (0.5 * logvar).exp()
    out = codec.decode(z, rates)[:, 0]
    return {
        "mel": mel_distance(out, target, codec.config.out_sample_rate, floor_db),
        "waveform": F.l1_loss(out, target),
        "kl": 0.5 * (mu.square() + logvar.exp() - 1 - logvar).mean(),
        "out": out,
        "target": target,
    }
