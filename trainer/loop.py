"""The training loop: rows in, steps, checkpoints; killed at any moment, it goes on exactly where it saved last."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch

from catalogs.commit import write_atomically
from catalogs.settings import dump_settings
from trainer.build import build
from trainer.checkpoint import Resumable, RunState, averaged, latest, only_run, restore, save, save_merged
from trainer.config import Phase, TrainConfig, TrainError
from trainer.corpora import Corpora
from trainer.data import Planner, RowStream, SampleMaker
from trainer.device import cpu_threads, pick_device
from trainer.evaluate import Validator
from trainer.latents import Latents
from trainer.metrics import Metrics
from trainer.mixture import Candidate, Mixture, data_key, describe_candidates, find_candidates, hold_out
from trainer.optim import MovingAverage, make_optimizer
from trainer.result import Progress, TrainResult
from trainer.signals import flag_on_signal
from trainer.step import Stepper, StepReport


def train(
    config: TrainConfig,
    say: Callable[[str], None] = print,
    on_step: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Run all phases; resumes from the newest checkpoint of `output`. Raises TrainError (and the loaders' errors), one line.

    SIGTERM and SIGINT finish the step, save and return with `stopped_early`.
    """
    started = time.perf_counter()
    output = Path(config.output)
    corpora = Corpora(config.corpora)
    candidates, held = hold_out(
        {name: find_candidates(corpora, p.where, p.max_seconds, name) for name, p in config.phases.items()},
        config.validation,
    )
    device = pick_device(config.device)
    with cpu_threads(config.threads), only_run(output):
        write_atomically(output / "train.yaml", dump_settings(config).encode())
        resumed = latest(output)
        trainee = build(config, corpora, resumed, say)
        trainee.model.to(device)
        trainee.codec.to(device)
        optimizer = make_optimizer(trainee.model, config.optim, next(iter(config.phases.values())).lr)
        average = MovingAverage(trainee.model, config.optim.ema) if config.optim.ema is not None else None
        state = Resumable(
            trainee, optimizer, average, RunState(data_key=data_key(config.seed, config.phases, candidates))
        )
        torch.manual_seed(config.seed)
        if resumed is not None:
            restore(output, resumed, state)
            say(f"going on from {resumed} at step {state.state.step} of {config.total_steps}")
        latents = Latents(corpora, trainee.codec, trainee.config, config.latent_cache)
        maker = SampleMaker(corpora, latents, trainee.config)
        with Metrics(output, state.state.step + 1) as metrics, flag_on_signal() as asked_to_stop:
            run = _Run(config, state, maker, device, say, on_step, metrics, asked_to_stop)
            run.all_phases(candidates, held)
        return _finish(config, state, run, time.perf_counter() - started)


def _finish(config: TrainConfig, run: Resumable, done: _Run, seconds: float) -> TrainResult:
    """The last checkpoint, if it is not there yet, and the result."""
    output, state = Path(config.output), run.state
    checkpoint = latest(output)
    if checkpoint is None or checkpoint.name != f"step_{state.step:07d}":
        save(output, run, config.keep)
    for segment, length in sorted(state.skipped.items()):
        done.say(f"left out: segment {segment} needs {length} positions, more than a row has")
    finished, adapter = output / "latest", None
    if run.trainee.lora is not None:
        adapter = str(finished)
        finished = finished if done.stopped else save_merged(output, run)
    return TrainResult(
        str(finished),
        state.step,
        math.nan if state.first_loss is None else state.first_loss,
        math.nan if state.last_loss is None else state.last_loss,
        seconds,
        done.stopped,
        state.realised.layouts,
        state.realised.languages,
        state.skipped,
        state.bad_steps,
        state.audio_s / 3600,
        done.validated,
        adapter,
    )


class _Run:
    """The steps of one call of `train`."""

    def __init__(
        self,
        config: TrainConfig,
        run: Resumable,
        maker: SampleMaker,
        device: torch.device,
        say: Callable[[str], None],
        on_step: Callable[[Progress], None] | None,
        metrics: Metrics,
        asked_to_stop: Callable[[], bool],
    ) -> None:
        self._config, self._saved, self._state = config, run, run.state
        self._maker, self._device, self._metrics = maker, device, metrics
        self.say, self._on_step, self._asked_to_stop = say, on_step, asked_to_stop
        self._stepper = Stepper(config, run.trainee, run.optimizer, maker, device)
        self._planner = Planner(run.trainee.tokenizer, run.trainee.config)
        self._bad_in_a_row = 0
        self._began, self._began_at = time.perf_counter(), run.state.step
        self.validated: dict[str, float] = {}
        self.stopped = False

    def all_phases(self, candidates: dict[str, list[Candidate]], held: list[Candidate]) -> None:
        """The phases, or what is left of them."""
        validator = None
        if held:
            validator = Validator(self._config, self._saved.trainee, held, self._maker, self._device)
            self.say(f"held out: {len(held)} segments, of which {validator.segments} are scored")
        first = 0
        for name, phase in self._config.phases.items():
            last = min(first + phase.steps, self._config.total_steps)
            if self._state.step < last and not self.stopped:
                self.say(f"phase {name}: {describe_candidates(candidates[name])}")
                self._phase(name, phase, candidates[name], first, last, validator)
                self.say(f"phase {name}, layouts so far: {self._state.realised.shares()}")
            first += phase.steps

    def _phase(
        self, name: str, phase: Phase, candidates: list[Candidate], first: int, last: int, validator: Validator | None
    ) -> None:
        """Steps `first`..`last` - 1 that are still to be done."""
        state = self._state
        mixture = Mixture(candidates, phase, name, self._config.seed)
        rows = RowStream(mixture, self._planner, phase, state.skipped)
        if state.rows.get("phase") == name:
            rows.seek(state.rows["at"])
        while state.step < last:
            if self._asked_to_stop():
                self.stopped = True
                self.say(f"asked to stop: saving step {state.step}; the same command goes on from there")
                return
            planned = list(islice(rows, phase.rows * phase.accumulate))
            report = self._stepper.take(phase, state.step - first, state.step, planned)
            state.step += 1
            state.rows = {"phase": name, "at": rows.state()}
            if report.finite:
                self._bad_in_a_row = 0
                for item in (item for row in planned for item in row):
                    state.realised.count(item.choice)
                    state.audio_s += item.choice.candidate.seconds
                state.first_loss = report.total if state.first_loss is None else state.first_loss
                state.last_loss = report.total
                if self._saved.average is not None:
                    self._saved.average.update(self._saved.trainee.model, state.step)
                self._metrics.write(state.step, report.metrics() | {"data/audio_h": state.audio_s / 3600})
            else:
                self._skip(name, phase)
            self._tell(report)
            if validator is not None and state.step % (self._config.validation.every or 1) == 0:
                self._validate(validator)
            if state.step % self._config.save_every == 0:
                save(Path(self._config.output), self._saved, self._config.keep)

    def _skip(self, name: str, phase: Phase) -> None:
        """A step without an update; TrainError after too many in a row."""
        self._state.bad_steps += 1
        self._bad_in_a_row += 1
        self._metrics.write(self._state.step, {"optim/skipped_steps": float(self._state.bad_steps)})
        self.say(f"step {self._state.step}: loss or gradient is no number; the step is skipped")
        if self._bad_in_a_row >= self._config.max_bad_steps:
            checkpoint = latest(Path(self._config.output))
            raise TrainError(
                f"{self._bad_in_a_row} steps in a row had a loss that is no number; lower the learning rate"
                f" (--set phases.{name}.lr={phase.lr / 3:.1e}) and run again: it goes on from"
                f" {checkpoint or 'the start'}"
            )

    def _validate(self, validator: Validator) -> None:
        with averaged(self._saved.trainee.model, self._saved.average):
            self.validated = validator.run()
        self._metrics.write(self._state.step, self.validated)
        words = ", ".join(
            f"{key} {self.validated[f'validation/{key}']:.4f}" for key in ("diffusion", "stop", "stop_f1")
        )
        self.say(f"step {self._state.step}: validation {words}")

    def _tell(self, report: StepReport) -> None:
        step, steps = self._state.step, self._config.total_steps
        each = (time.perf_counter() - self._began) / max(1, step - self._began_at)
        if self._on_step is not None:
            self._on_step(Progress(step, steps, report, each * (steps - step)))
        if report.finite and (step % self._config.log_every == 0 or step in (self._began_at + 1, steps)):
            self.say(
                f"step {step}/{steps}: diffusion {report.diffusion:.4f}, stop {report.stop:.4f},"
                f" {report.patches / report.seconds:.0f} patches/s, {_duration(each * (steps - step))} left"
            )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
