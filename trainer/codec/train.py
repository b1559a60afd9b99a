"""`voxmill train-codec`: train a codec on the audio of a corpus."""

from __future__ import annotations

import logging
import math
import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from catalogs.durations import duration_text
from catalogs.files import write_atomically
from catalogs.settings import dump_settings
from trainer.codec.clips import CodecClip, at_input_rate
from trainer.codec.config import CodecConfig, CodecFit
from trainer.codec.files import read_codec, write_codec
from trainer.codec.fit import CodecTrainer, run_steps
from trainer.codec.lineage import CodecLineage
from trainer.codec.measure import CodecMeasures, measure, missing_packages
from trainer.codec.normalise import normalise_latents
from trainer.codec.resume import read_state, remove_state, write_state
from trainer.codec.source import CorpusClips, read_each
from trainer.config import TrainError
from trainer.data.corpora import Corpora
from trainer.data.mixture import hash_number
from trainer.runtime.device import cpu_threads, pick_device
from trainer.runtime.metrics import Metrics, read_metrics
from trainer.runtime.run_folder import hold_folder
from trainer.runtime.stop_signal import flag_on_signal
from voxcpm.audiovae import AudioVAE, AudioVAEConfig
from voxcpm.presets import config_dict

log = logging.getLogger(__name__)

_HELD_OUT = 0.1
_HELD_OUT_MOST = 32
_HELD_OUT_LEAST = 4
_NORMALISED_BY = 1000
"""Maximum number of clips that latents are normalized over."""


@dataclass(frozen=True)
class CodecResult:
    """A trained codec, and the measures of its reconstructions of held-out clips before and after training."""

    folder: str
    steps: int
    first_loss: float
    last_loss: float
    before: CodecMeasures
    after: CodecMeasures
    seconds: float
    stopped_early: bool = False
    """A signal stopped the run; the same call resumes it. `after` is then the last measurement."""


def train_codec(config: CodecConfig) -> CodecResult:
    """Train and write a codec; a tenth of the clips is held out to measure it. Raises TrainError with one line.

    With `save_every` a killed run resumes exactly from its last save; otherwise it starts from the beginning. On SIGTERM or SIGINT
    it finishes the step, saves and returns with `stopped_early`.
    """
    output = Path(config.output)
    corpora = Corpora(config.corpora)
    training, held, held_ids, seconds = _clips(config, corpora)
    with ExitStack() as stack:
        stack.enter_context(cpu_threads(config.threads))
        torch.manual_seed(config.seed)
        codec = _fresh(config) if config.start is None else read_codec(config.start)
        codec.to(pick_device(config.device))
        stack.enter_context(hold_folder(output))
        lineage = CodecLineage(config, corpora, training.segments, held_ids)
        asked_to_stop = stack.enter_context(flag_on_signal())
        log.info(f"codec: {len(training)} clips, {duration_text(seconds)} to train on, {len(held)} held out")
        if missing := missing_packages():
            log.info(f"STOI and PESQ are not measured: pip install {' '.join(missing)}")
        return _Run(config, codec, training, held, asked_to_stop, lineage).result()


class _Run:
    """One call of `train_codec`."""

    def __init__(
        self,
        config: CodecConfig,
        codec: AudioVAE,
        training: CorpusClips,
        held: Sequence[CodecClip],
        asked_to_stop: Callable[[], bool],
        lineage: CodecLineage,
    ) -> None:
        self._config, self._codec, self._clips, self._held, self._lineage = config, codec, training, held, lineage
        self._asked_to_stop, self._output = asked_to_stop, Path(config.output)
        self._measured: dict[int, CodecMeasures] = {}

    def result(self) -> CodecResult:
        """Take the remaining steps, measure a last time, and write the codec."""
        started = time.perf_counter()
        config, codec, output = self._config, self._codec, self._output
        before = measure(codec, self._held, config.crop_s)
        fit, memory = fit_of(config), _memory(config)
        trainer = CodecTrainer(codec, self._clips, fit, config.seed, config.start is None, memory)
        try:
            self._steps(trainer)
        finally:
            trainer.close()
        stopped = trainer.taken < config.steps
        codec.requires_grad_(False).eval()
        if stopped:
            after = self._measured[max(self._measured)] if self._measured else before
            log.info(f"asked to stop: step {trainer.taken} is saved. Run the same command to resume.")
        else:
            after = self._finish()
            log.info(
                f"held-out mel distance {before.mel:.3f} -> {after.mel:.3f} (to other clips {after.mel_other:.3f})"
            )
            log.info(f"use it with --set model.codec={output}")
        for reason in self._clips.unreadable.values():
            log.info(f"left out: {reason}")
        losses = [row["loss/total"] for row in read_metrics(output)] or [math.nan]
        seconds = time.perf_counter() - started
        return CodecResult(str(output), trainer.taken, losses[0], losses[-1], before, after, seconds, stopped)

    def _steps(self, trainer: CodecTrainer) -> None:
        state = read_state(self._output, self._config)
        if state is not None:
            trainer.load_state_dict(state)
            log.info(f"resuming from step {trainer.taken} of {self._config.steps}")
        write_atomically(self._output / "train-codec.yaml", dump_settings(self._config).encode())
        every = self._config.save_every
        with Metrics(self._output, trainer.taken + 1) as metrics:

            def report(step: int, values: dict[str, float]) -> None:
                metrics.write(step, values | self._measure(step))
                if every is not None and (step % every == 0 or step == self._config.steps):
                    self._save(trainer)

            run_steps(trainer, report, self._asked_to_stop)
        if trainer.taken < self._config.steps:
            self._save(trainer)

    def _measure(self, step: int) -> dict[str, float]:
        """Return metrics of the held-out clips if they are due at this step and the run is not asked to stop; otherwise {}."""
        every = self._config.measure_every
        due = step == self._config.steps or (every is not None and step % every == 0)
        if not due or self._asked_to_stop():
            return {}
        self._measured[step] = measure(self._codec, self._held, self._config.crop_s)
        log.info(f"  held out, step {step}: {self._measured[step]}")
        return self._measured[step].values(self._codec.config.out_sample_rate)

    def _save(self, trainer: CodecTrainer) -> None:
        # The state is written last, so that the codec beside it is of the same step or a later one.
        write_codec(self._output, self._codec)
        self._lineage.write(self._output, trainer.taken)
        write_state(self._output, self._config, trainer.state_dict())

    def _finish(self) -> CodecMeasures:
        config, codec = self._config, self._codec
        if config.normalise:
            some = read_each(self._clips, _NORMALISED_BY)
            normalise_latents(codec, (at_input_rate(clip, codec.sample_rate) for clip in some))
            self._measured.clear()  # It should sound the same, so the codec that is written is measured again.
        after = self._measured.get(config.steps) or measure(codec, self._held, config.crop_s)
        write_codec(self._output, codec)
        self._lineage.write(self._output, config.steps)
        if config.save_every is None:
            remove_state(self._output)
        return after


def _memory(config: CodecConfig) -> float:
    """Return the bytes for clips in memory. If only the decoder is trained, the other half is for their latents and targets."""
    return config.memory_gb * 1e9 / (2 if config.decoder_only else 1)


def fit_of(config: CodecConfig) -> CodecFit:
    """Return the settings of the fit."""
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


def _clips(config: CodecConfig, corpora: Corpora) -> tuple[CorpusClips, Sequence[CodecClip], Sequence[str], float]:
    """Return (training clips, clips to measure by, ids of those that are held out, seconds of training clips).

    A hash of the segments' ids decides which are held out. Raises TrainError if there are too few.
    """
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
    memory = _memory(config)
    training = CorpusClips(corpora, chosen[count:], memory)
    held = list(read_each(CorpusClips(corpora, chosen[:count], memory) if count else training, count or _HELD_OUT_MOST))
    if len(held) < 2:
        checks = " && ".join(f"voxmill fsck {shlex.quote(str(part.path))}" for part in corpora.parts)
        raise TrainError(f"{corpora.title}: only {len(held)} of the held-out clips can be read; run: {checks}")
    kept = corpora.kept()
    return training, held, chosen[:count], sum(kept[segment]["duration_s"] for segment in chosen[count:])


def _fresh(config: CodecConfig) -> AudioVAE:
    values = config.config or config_dict(config.size, 512)["audio_vae_config"]
    return AudioVAE(AudioVAEConfig.from_dict(values))
