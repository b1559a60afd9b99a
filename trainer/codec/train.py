"""`voxmill train-codec`: a codec on the audio of a corpus."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from catalogs.commit import write_atomically
from catalogs.settings import dump_settings
from trainer.codec.clips import CodecClip, at_input_rate
from trainer.codec.config import CodecConfig
from trainer.codec.files import read_codec, write_codec
from trainer.codec.fit import CodecFit, CodecTrainer, run_steps
from trainer.codec.measure import CodecMeasures, measure, missing_packages
from trainer.codec.normalise import normalise_latents
from trainer.codec.resume import read_state, write_state
from trainer.config import TrainError
from trainer.corpora import Corpora
from trainer.device import cpu_threads, pick_device
from trainer.metrics import Metrics, read_metrics
from trainer.mixture import hash_number
from trainer.sizes import config_dict
from voxcpm.audiovae import AudioVAE, AudioVAEConfig

_HELD_OUT = 0.1
_HELD_OUT_MOST = 32
_HELD_OUT_LEAST = 4


@dataclass(frozen=True)
class CodecResult:
    """A trained codec, and how near its reconstructions of held-out clips were before and after."""

    folder: str
    steps: int
    first_loss: float
    last_loss: float
    before: CodecMeasures
    after: CodecMeasures
    seconds: float


def train_codec(config: CodecConfig, say: Callable[[str], None] = print) -> CodecResult:
    """Train and write a codec; a tenth of the clips is held out to measure it. Raises TrainError with one line.

    With `save_every` a run that is killed goes on exactly where it saved last; without, it starts anew.
    """
    started = time.perf_counter()
    output = Path(config.output)
    corpora = Corpora(config.corpora)
    training, held = _clips(config, corpora)
    with cpu_threads(config.threads):
        torch.manual_seed(config.seed)
        codec = _fresh(config) if config.start is None else read_codec(config.start)
        codec.to(pick_device(config.device))
        minutes = sum(len(clip.samples) / clip.rate for clip in training) / 60
        say(f"codec: {len(training)} clips, {minutes:.1f} min to train on, {len(held)} held out")
        before = measure(codec, held, config.crop_s)
        if missing := missing_packages():
            say(f"STOI and PESQ are not measured: pip install {' '.join(missing)}")
        trainer = CodecTrainer(codec, training, fit_of(config), config.seed, fresh=config.start is None)
        output.mkdir(parents=True, exist_ok=True)
        state = read_state(output, config)
        if state is not None:
            trainer.load_state_dict(state)
            say(f"going on from step {trainer.taken} of {config.steps}")
        write_atomically(output / "train-codec.yaml", dump_settings(config).encode())
        measured: dict[int, CodecMeasures] = {}
        with Metrics(output, trainer.taken + 1) as metrics:

            def report(step: int, values: dict[str, float]) -> None:
                if step == config.steps or (config.measure_every is not None and step % config.measure_every == 0):
                    measured[step] = measure(codec, held, config.crop_s)
                    say(f"  held out, step {step}: {measured[step]}")
                    values |= measured[step].values(codec.config.out_sample_rate)
                metrics.write(step, values)
                if config.save_every is not None and (step % config.save_every == 0 or step == config.steps):
                    # The state last: with it there, the codec beside it is of the same step.
                    write_codec(output, codec)
                    write_state(output, config, trainer.state_dict())

            run_steps(trainer, say, report)
        codec.requires_grad_(False).eval()
        if config.normalise:
            normalise_latents(codec, [at_input_rate(clip, codec.sample_rate) for clip in training])
            measured.clear()  # It should sound the same: the codec that is written is measured again.
        after = measured.get(config.steps) or measure(codec, held, config.crop_s)
        write_codec(output, codec)
        say(f"held-out mel distance {before.mel:.3f} -> {after.mel:.3f} (to other clips {after.mel_other:.3f})")
        say(f"use it with --set model.codec={output}")
    losses = [row["loss/total"] for row in read_metrics(output)]
    seconds = time.perf_counter() - started
    return CodecResult(str(output), config.steps, losses[0], losses[-1], before, after, seconds)


def fit_of(config: CodecConfig) -> CodecFit:
    """How the codec is fitted, from the settings."""
    return CodecFit(
        steps=config.steps,
        batch=config.batch,
        crop_s=config.crop_s,
        lr=config.lr,
        waveform_weight=config.waveform_weight,
        kl_weight=config.kl_weight,
        warmup=config.warmup,
        schedule=config.schedule,
        decoder_only=config.decoder_only,
        floor_db=config.floor_db,
        narrowed=config.narrowed,
        adversary=config.adversary,
    )


def _clips(config: CodecConfig, corpora: Corpora) -> tuple[list[CodecClip], list[CodecClip]]:
    """(to train on, held out); which is which follows from the segments' ids."""
    ids = sorted(corpora.chosen(config.where, "codec"), key=lambda segment: hash_number("codec", segment))
    if len(ids) < 4:
        raise TrainError(
            f"{corpora.title} has {len(ids)} kept segments where {config.where}: a codec needs four at least, two to be"
            " measured by"
        )
    chosen = ids[: config.clips]
    count = min(_HELD_OUT_MOST, max(min(_HELD_OUT_LEAST, len(chosen) // 2), round(len(chosen) * _HELD_OUT)))
    if config.held_out is not None:
        count = min(config.held_out, len(chosen) - 2)
    clips = [CodecClip(*corpora.native_clip(segment)) for segment in chosen]
    held, training = clips[:count], clips[count:]
    return training, held or training[:_HELD_OUT_MOST]


def _fresh(config: CodecConfig) -> AudioVAE:
    values = config.config or config_dict(config.size, 512)["audio_vae_config"]
    return AudioVAE(AudioVAEConfig.from_dict(values))
