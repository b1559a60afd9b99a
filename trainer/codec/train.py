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
from trainer.codec.fit import CodecFit, crops, fit_codec, reconstruction
from trainer.config import TrainError
from trainer.corpora import Corpora
from trainer.device import cpu_threads, pick_device
from trainer.metrics import Metrics
from trainer.mixture import hash_number
from trainer.sizes import config_dict
from voxcpm.audiovae import AudioVAE, AudioVAEConfig

_HELD_OUT = 0.1
_HELD_OUT_MOST = 32


@dataclass(frozen=True)
class CodecResult:
    """A trained codec. `mel_before`, `mel_after`: distance of held-out clips to their reconstruction, 0.1 is 2 dB."""

    folder: str
    steps: int
    first_loss: float
    last_loss: float
    mel_before: float
    mel_after: float
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
        before = held_out_distance(codec, held, fit)
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(output / "train-codec.yaml", dump_settings(config).encode())
        with Metrics(output) as metrics:
            losses = fit_codec(codec, training, fit, config.seed, say, metrics.write)
        after = held_out_distance(codec, held, fit)
        write_codec(output, codec)
        say(f"held-out mel distance {before:.3f} -> {after:.3f}; use it with --set model.codec={output}")
    return CodecResult(str(output), config.steps, losses[0], losses[-1], before, after, time.perf_counter() - started)


@torch.no_grad()
def held_out_distance(codec: AudioVAE, clips: list[np.ndarray], fit: CodecFit) -> float:
    """Mean mel distance of fixed crops of clips to their reconstruction from the mean latents."""
    was_training = codec.training
    codec.eval()
    device = next(codec.parameters()).device
    distances = []
    for index, clip in enumerate(clips):
        wav, target = crops(codec, [clip], CodecFit(batch=1, crop_s=fit.crop_s), np.random.default_rng(index))
        distances.append(float(reconstruction(codec, wav.to(device), target.to(device), None)["mel"]))
    codec.train(was_training)
    return sum(distances) / len(distances)


def _clips(config: CodecConfig, corpora: Corpora) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(to train on, held out); which is which follows from the segments' ids."""
    ids = sorted(corpora.chosen(config.where, "codec"), key=lambda segment: hash_number("codec", segment))
    if len(ids) < 2:
        raise TrainError(
            f"{corpora.title} has {len(ids)} kept segments where {config.where}: a codec needs two at least"
        )
    chosen = ids[: config.clips]
    count = min(_HELD_OUT_MOST, max(1, round(len(chosen) * _HELD_OUT)))
    held, training = chosen[:count], chosen[count:]
    return [corpora.clip(segment) for segment in training], [corpora.clip(segment) for segment in held]


def _fresh(config: CodecConfig) -> AudioVAE:
    values = config.config or config_dict(config.size, 512)["audio_vae_config"]
    return AudioVAE(AudioVAEConfig.from_dict(values))
