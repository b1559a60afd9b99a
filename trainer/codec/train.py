"""`voxmill train-codec`: a codec on the audio of a corpus."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from catalogs.commit import write_atomically
from catalogs.settings import dump_settings
from trainer.codec.config import CodecConfig
from trainer.codec.files import read_codec, write_codec
from trainer.codec.fit import CodecFit, crops, fit_codec
from trainer.codec.losses import mel_distance
from trainer.config import TrainError
from trainer.corpora import Corpora
from trainer.device import cpu_threads, pick_device
from trainer.metrics import Metrics
from trainer.mixture import hash_number
from trainer.sizes import config_dict
from voxcpm.audiovae import AudioVAE, AudioVAEConfig

_HELD_OUT = 0.1
_HELD_OUT_MOST = 32
_HELD_OUT_LEAST = 4
_OTHERS = 8
"""Other clips that each reconstruction is compared with, at most."""


@dataclass(frozen=True)
class CodecResult:
    """A trained codec. Mel distances of reconstructions of held-out clips, 0.1 is 2 dB: `mel_before` and `mel_after` training to
    the clip itself, `mel_other` after it to another clip. Latents that carry nothing would make the last two equal."""

    folder: str
    steps: int
    first_loss: float
    last_loss: float
    mel_before: float
    mel_after: float
    mel_other: float
    seconds: float


def train_codec(config: CodecConfig, say: Callable[[str], None] = print) -> CodecResult:
    """Train and write a codec; a tenth of the clips is held out to measure it. Raises TrainError with one line.

    The folder is written at the end, whole or not at all: a run that is killed starts anew.
    """
    started = time.perf_counter()
    output = Path(config.output)
    corpora = Corpora(config.corpora)
    training, held = _clips(config, corpora)
    with cpu_threads(config.threads):
        torch.manual_seed(config.seed)
        codec = _fresh(config) if config.start is None else read_codec(config.start)
        codec.to(pick_device(config.device))
        fit = CodecFit(config.steps, config.batch, config.crop_s, config.lr, config.waveform_weight, config.kl_weight)
        minutes = sum(map(len, training)) / codec.sample_rate / 60
        say(f"codec: {len(training)} clips, {minutes:.1f} min to train on, {len(held)} held out")
        before, _ = held_out_distances(codec, held, fit)
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(output / "train-codec.yaml", dump_settings(config).encode())
        with Metrics(output) as metrics:
            losses = fit_codec(codec, training, fit, config.seed, say, metrics.write, fresh=config.start is None)
        after, other = held_out_distances(codec, held, fit)
        write_codec(output, codec)
        say(f"held-out mel distance {before:.3f} -> {after:.3f} (to other clips {other:.3f})")
        say(f"use it with --set model.codec={output}")
    return CodecResult(
        str(output), config.steps, losses[0], losses[-1], before, after, other, time.perf_counter() - started
    )


@torch.no_grad()
def held_out_distances(codec: AudioVAE, clips: list[np.ndarray], fit: CodecFit) -> tuple[float, float]:
    """Mean mel distances of fixed crops' reconstructions (from the mean latents): to the crops, and to those of other clips."""
    was_training = codec.training
    codec.eval()
    device, rate = next(codec.parameters()).device, codec.config.out_sample_rate
    one = CodecFit(batch=1, crop_s=fit.crop_s)
    pairs = [crops(codec, [clip], one, np.random.default_rng(index)) for index, clip in enumerate(clips)]
    wanted = torch.cat([target for _, target in pairs]).to(device)
    made = torch.cat([codec.decode(codec.encode(wav.to(device)))[:, 0] for wav, _ in pairs])
    codec.train(was_training)
    shifts = range(1, min(len(clips), _OTHERS + 1))
    other = [float(mel_distance(made, wanted.roll(shift, dims=0), rate)) for shift in shifts]
    return float(mel_distance(made, wanted, rate)), sum(other) / len(other)


def _clips(config: CodecConfig, corpora: Corpora) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(to train on, held out); which is which follows from the segments' ids."""
    ids = sorted(corpora.chosen(config.where, "codec"), key=lambda segment: hash_number("codec", segment))
    if len(ids) < 4:
        raise TrainError(
            f"{corpora.title} has {len(ids)} kept segments where {config.where}: a codec needs four at least, two to be"
            " measured by"
        )
    chosen = ids[: config.clips]
    count = min(_HELD_OUT_MOST, max(min(_HELD_OUT_LEAST, len(chosen) // 2), round(len(chosen) * _HELD_OUT)))
    held, training = chosen[:count], chosen[count:]
    return [corpora.clip(segment) for segment in training], [corpora.clip(segment) for segment in held]


def _fresh(config: CodecConfig) -> AudioVAE:
    values = config.config or config_dict(config.size, 512)["audio_vae_config"]
    return AudioVAE(AudioVAEConfig.from_dict(values))
