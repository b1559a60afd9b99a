"""Reports of a run in progress: console lines, metrics, validations, synthesized sentences."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from catalogs.durations import duration_text
from trainer.checkpoint.restore import Resumable, step_name
from trainer.checkpoint.save import whole_weights
from trainer.config import TrainConfig
from trainer.data.mixture import Candidate, Mixture
from trainer.data.sample_counts import caption_words, layout_words
from trainer.data.samples import SampleMaker
from trainer.model.ema import averaged
from trainer.monitor.speech_samples import SpeechSampler, write_spoken
from trainer.monitor.validation import Validator
from trainer.result import Progress, StepReport
from trainer.runtime.flops import flops_each
from trainer.runtime.metrics import Metrics
from trainer.runtime.ranks import Ranks
from trainer.runtime.stop_signal import never
from voxcpm.kernels.roofline import find_gpu
from voxcpm.model.backbone import VoxCPM2

log = logging.getLogger(__name__)


class Reporter:
    """Reports steps; all ranks call it, only the first one writes."""

    def __init__(
        self,
        config: TrainConfig,
        run: Resumable,
        ranks: Ranks,
        maker: SampleMaker,
        held: Sequence[Candidate],
        on_step: Callable[[Progress], None] | None,
        metrics: Metrics | None,
        asked_to_stop: Callable[[], bool] = never,
    ) -> None:
        """held: the held-out segments. metrics: None on all ranks but the first. asked_to_stop: returns True if this rank is asked
        to stop, which ends a validation."""
        self._config, self._run, self._ranks, self._metrics = config, run, ranks, metrics
        self._on_step = on_step
        # All ranks must leave a validation at the same row.
        self._stopping = lambda: ranks.any(asked_to_stop())
        self._output = Path(config.output)
        self._device = run.trainee.model.device
        self._began, self._began_at = time.perf_counter(), run.state.step
        gpu = find_gpu(torch.cuda.get_device_name(self._device)) if self._device.type == "cuda" else None
        self._flops, self._total_steps = flops_each(run.trainee.config), config.total_steps
        self._peak = gpu[1] * ranks.world if gpu is not None else None
        self.validated: dict[str, float] = {}
        self.held_unreadable: dict[str, str] = {}
        """Held-out segments that could not be read, with the reasons. They are counted separately from those of the steps, since
        ranks may differ."""
        self._validator: Validator | None = None
        self._listener: SpeechSampler | None = None
        if run.state.reordered_at == run.state.step:
            log.info(
                f"step {run.state.step}: begun by an earlier version; from here on the data comes in the order of this one"
            )
        if held:
            self._validator = Validator(config, run.trainee, held, maker, self._device, self._stopping, ranks)
            log.info(f"held out: {len(held)} segments, of which {self._validator.segments} are scored")
            if config.validation.speak:
                self._listener = SpeechSampler(config, run.trainee, held, maker, asked_to_stop)

    def step(self, report: StepReport) -> None:
        """Report a step. If it was not taken, `skipped` has reported the reason."""
        state = self._run.state
        step, steps = state.step, self._total_steps
        told = step % self._config.log_every == 0 or step in (self._began_at + 1, steps)
        if report.taken:
            values = _metrics(report) | self._speed(report) | {"data/audio_h": state.audio_s / 3600}
            self._write(values | state.phase.metrics() if told else values)
        each = (time.perf_counter() - self._began) / max(1, step - self._began_at)
        if self._on_step is not None and self._ranks.first:
            self._on_step(Progress(step, steps, report, each * (steps - step)))
        if report.taken and told:
            log.info(
                f"step {step}/{steps}: diffusion {report.diffusion:.4f}, stop {report.stop:.4f},"
                f" {report.patches / report.seconds:.0f} patches/s, {duration_text(each * (steps - step))} left"
            )

    def phase_ended(self, name: str, mixture: Mixture) -> None:
        """Report the samples that the phase was trained on, next to the shares that were asked for."""
        realised = self._run.state.phases.get(name)
        if realised is None or not realised.samples:
            return
        asked, rounds = mixture.shares.asked(realised.samples), mixture.rounds(realised.layouts)
        made = f"; {realised.decoupled:,} content-decoupled" if realised.decoupled else ""
        log.info(f"phase {name}, by layout: {layout_words(realised.layouts, asked, rounds)}{made}")
        log.info(f"phase {name}, by language: {realised.language_words()}")
        if realised.captions:
            words = caption_words(realised.captions, mixture.captions.asked, mixture.captions.asked_chinese)
            log.info(f"phase {name}, by description: {words}")

    def skipped(self, reason: str) -> None:
        """Report a step that was not taken; append the last entry of the state's list to skipped.jsonl."""
        state = self._run.state
        self._write({"optim/skipped_steps": float(state.bad_steps)})
        self._append(state.skipped_steps[-1])
        log.info(f"step {state.step}: {reason}; the step is skipped")

    def left_out(self, unreadable: dict[str, str]) -> None:
        """Report damaged segments (id -> reason): one message and one line of skipped.jsonl each."""
        for segment, reason in unreadable.items():
            log.info(f"step {self._run.state.step}: left out: {reason}")
            self._append({"step": self._run.state.step, "reason": reason, "segments": [segment]})

    def validate_if_due(self) -> None:
        """Score and synthesize the held-out segments with the moving average, if this step is due. The last step is always due.

        A run that is asked to stop has little time left to save, so it skips the rest of this.
        """
        step = self._run.state.step
        due = step == self._total_steps or step % (self._config.validation.every or 1) == 0
        if self._validator is None or not due:
            return
        with averaged(self._run.trainee.model, self._run.average):
            found = self._validator.run()
            if found and self._listener is not None:
                self._hear(self._listener)
        if not found:
            log.info(f"step {step}: asked to stop, no validation")
            return
        damaged = self._validator.unreadable
        self.left_out({segment: reason for segment, reason in damaged.items() if segment not in self.held_unreadable})
        self.held_unreadable |= damaged
        self.validated = found
        self._write(self.validated)
        words = ", ".join(
            f"{key} {self.validated[f'validation/{key}']:.4f}" for key in ("diffusion", "stop", "stop_f1")
        )
        log.info(f"step {step}: validation {words}")

    def _hear(self, listener: SpeechSampler) -> None:
        """Synthesize on the first rank only; a sharded model is gathered there."""
        step, model = self._run.state.step, self._run.trainee.model
        if self._ranks.sharded:
            model.reshard()  # type: ignore[operator]
            weights = whole_weights(model, self._ranks)
        with self._ranks.agreed():
            if self._ranks.first:
                if self._ranks.sharded:
                    model = VoxCPM2.from_config(self._run.trainee.config, device="meta")
                    model.load_state_dict(weights, assign=True)
                    model.to(self._device)
                heard = listener.listen(model)
                write_spoken(self._output / "heard" / step_name(step), heard)
                if self._metrics is not None:
                    self._metrics.hear(step, heard)

    def _speed(self, report: StepReport) -> dict[str, float]:
        """Return the useful TFLOP per second (without padding and recomputing), and the share of the GPUs' peak if it is known."""
        position, patch, target = self._flops
        flops = report.positions * position + report.audio * patch + report.patches * target
        speed = flops / report.seconds
        found = {"speed/tflops": speed / 1e12}
        return found if self._peak is None else found | {"speed/mfu": speed / self._peak}

    def _append(self, entry: dict[str, Any]) -> None:
        """Append one line to skipped.jsonl."""
        if self._metrics is not None:
            self._metrics.skip(entry)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write metrics of a step."""
        if self._metrics is not None:
            self._metrics.write(step, values)

    def _write(self, values: dict[str, float]) -> None:
        self.write(self._run.state.step, values)


def _metrics(report: StepReport) -> dict[str, float]:
    """Return the values of a report by metric name."""
    return {
        "loss/diffusion": report.diffusion,
        "loss/stop": report.stop,
        "loss/total": report.total,
        "optim/grad_norm": report.grad_norm,
        "optim/lr": report.lr,
        "speed/positions_per_s": report.positions / report.seconds,
        "speed/patches_per_s": report.patches / report.seconds,
        "speed/step_s": report.seconds,
        "speed/waited_share": report.waited_s / report.seconds,
        "data/pad_share": 1 - report.positions / report.slots,
        **{f"loss/{name}": value for name, value in report.groups.items()},
    }
