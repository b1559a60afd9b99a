"""The training loop: rows, steps, checkpoints. A run that is killed resumes exactly from its last checkpoint."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from catalogs.files import write_atomically
from catalogs.settings import dump_settings
from catalogs.vocabulary.licenses import NOT_STATED
from trainer.checkpoint.lineage import LineageRecorder
from trainer.checkpoint.restore import Resumable, Saved, latest, restore, step_name
from trainer.checkpoint.save import CheckpointWriter, only_run, save_merged
from trainer.checkpoint.state import RunState
from trainer.config import Phase, TrainConfig, TrainError
from trainer.data.candidates import Candidates
from trainer.data.latent_cache import Latents
from trainer.data.mixture import Mixture, describe_candidates
from trainer.data.rows import Planned, Planner, RowStream
from trainer.data.samples import BatchMaker, MicroBatch, SampleMaker, StepRows, step_maker
from trainer.dryrun.checks import Data, check_all
from trainer.model.build import build
from trainer.model.ema import MovingAverage
from trainer.monitor.loss_guard import Guard
from trainer.monitor.panel import Panel
from trainer.monitor.reporter import Reporter
from trainer.optim import make_optimizer
from trainer.result import Progress, StepReport, TrainResult
from trainer.runtime.device import cpu_threads, pick_device, slow_arithmetic
from trainer.runtime.metrics import Metrics
from trainer.runtime.parallelize import Parallel, parallelize
from trainer.runtime.prefetch import Prefetcher
from trainer.runtime.ranks import Ranks, joined, only_first_logs, planned_ranks
from trainer.runtime.stop_signal import flag_on_signal
from trainer.step import Stepper

log = logging.getLogger(__name__)


def train_locally(
    config: TrainConfig,
    on_step: Callable[[Progress], None] | None,
) -> TrainResult:
    """Train in this process, which is one rank of a run or the whole run. See `trainer.run.train`."""
    ranks = planned_ranks(config)
    device = pick_device(config.compute.device, ranks.local)
    with joined(config, ranks, device), only_first_logs(ranks):
        return _train(config, ranks, device, on_step)


def _train(
    config: TrainConfig,
    ranks: Ranks,
    device: torch.device,
    on_step: Callable[[Progress], None] | None,
) -> TrainResult:
    started = time.perf_counter()
    output = Path(config.output)
    with ExitStack() as stack:
        stack.enter_context(cpu_threads(config.compute.threads))
        with ranks.agreed():
            data, resumed = check_all(config)
            corpora = data.corpora
        # Only after the checks of all ranks: the first rank now removes what killed runs left, which would disturb the checks.
        with ranks.agreed():
            if ranks.first:
                stack.enter_context(only_run(output))
                write_atomically(output / "train.yaml", dump_settings(config).encode())
        ranks.wait()
        for line in config.renamed():
            log.info(f"note: {line}")
        log.info(f"training on {corpora.title} into {output}")
        if ranks.first and (unlicensed := corpora.license_hours()[0].get(NOT_STATED)):
            log.info(f"{unlicensed:.3f} h of it have no license; to leave them out: --set data.licenses=[stated]")
        trainee = ranks.in_turn(lambda: build(config, corpora, resumed.folder if resumed else None))
        trainee.model.to(device)
        trainee.codec.to(device)
        parallel = parallelize(trainee.model, config, ranks, device)
        optimizer = make_optimizer(trainee.model, config.optim, next(iter(config.phases.values())).lr)
        average = MovingAverage(trainee.model, config.optim.ema) if config.optim.ema is not None else None
        run = Resumable(trainee, optimizer, average, RunState(data_key=data.key, base=trainee.base))
        if resumed is not None:
            with ranks.agreed():
                restore(output, resumed, run)
            log.info(f"resuming from {resumed.name} at step {run.state.step} of {config.total_steps}")
        latents = Latents(corpora, trainee.codec, trainee.config, config.latent_folder)
        for note in (*latents.notes, *slow_arithmetic(config, device)):
            log.info(f"note: {note}")
        maker = SampleMaker(corpora, latents, trainee.config)
        metrics = stack.enter_context(Metrics(output, run.state.step + 1)) if ranks.first else None
        asked_to_stop = stack.enter_context(flag_on_signal())
        reporter = Reporter(config, run, ranks, maker, data.held, on_step, metrics, asked_to_stop)
        ahead = stack.enter_context(Prefetcher())
        panel = None
        if config.validation.best is not None and ranks.first:
            panel = Panel(config, str(device), reporter.write, asked_to_stop)
            stack.callback(panel.close)
        with ranks.agreed():
            lineage = _lineage(config, run, data, resumed) if ranks.first else None
        steps = _Run(config, run, parallel, maker, reporter, ahead, asked_to_stop, panel, lineage)
        stack.callback(steps.close)
        with ranks.agreed():
            if panel is not None:
                panel.begin(corpora, data.held, run.state.step)
        steps.all_phases(data.mixtures, data.candidates)
        return steps.result(started)


def _lineage(config: TrainConfig, run: Resumable, data: Data, resumed: Saved | None) -> LineageRecorder:
    """Return the record of what the run draws, with what it has drawn so far."""
    recorder = LineageRecorder(config, data.corpora, data.mixtures, data.held, data.key)
    if resumed is None:
        recorder.begin()
    else:
        recorder.resume(resumed, run.state, Planner(run.trainee.tokenizer, run.trainee.config))
    return recorder


class _Run:
    """The steps of one call of `train`."""

    def __init__(
        self,
        config: TrainConfig,
        run: Resumable,
        parallel: Parallel,
        maker: SampleMaker,
        reporter: Reporter,
        ahead: Prefetcher,
        asked_to_stop: Callable[[], bool],
        panel: Panel | None,
        lineage: LineageRecorder | None,
    ) -> None:
        """panel: None on all ranks but the first, and without `validation.best`. lineage: None on all ranks but the first."""
        self._config, self._saved, self._state, self._lineage = config, run, run.state, lineage
        self._panel, self._panel_due = panel, False
        self._output, self._ranks = Path(config.output), parallel.ranks
        self._reporter, self._ahead, self._asked_to_stop = reporter, ahead, asked_to_stop
        self._guard = Guard(config.guard, run.state.recent, run.state.skipped_steps)
        device = run.trainee.model.device
        self._stepper = Stepper(config, run.trainee, run.optimizer, device, parallel, self._guard.accepts)
        self._batches = BatchMaker(config, maker, run.trainee.config, device)
        self._planner = Planner(run.trainee.tokenizer, run.trainee.config)
        protected = panel.protected if panel is not None else set
        self._keeper = CheckpointWriter(self._output, config, self._ranks, protected, lineage)
        self._due = False
        self._stopped = False
        self._ended = False

    def close(self) -> None:
        """Wait until pending checkpoints are written."""
        self._keeper.close()

    def all_phases(self, mixtures: dict[str, Mixture], candidates: dict[str, Candidates]) -> None:
        """Run the remaining steps of all phases."""
        first = 0
        self._end_if_best(now=True)
        for name, phase in self._config.phases.items():
            last = min(first + phase.steps, self._config.total_steps)
            if self._state.step < last and not self._stopped and not self._ended:
                log.info(f"phase {name}: {describe_candidates(candidates[name])}")
                epochs = mixtures[name].estimated_epochs(last - first)
                if warning := mixtures[name].repetition_warning(epochs, self._config.data.warn_epochs):
                    log.info(f"warning: {warning}")
                self._phase(name, phase, mixtures[name], len(candidates[name]), first, last)
            first += phase.steps

    def result(self, started: float) -> TrainResult:
        """Save the last checkpoint if it does not exist yet, and return the result."""
        state, run = self._state, self._saved
        self._keeper.settle(wait=True)
        saved = latest(self._output)
        missing = saved is None or saved.step != state.step or saved.folder is None
        # The first rank decides: it may already be saving when another rank checks.
        if self._ranks.any(self._ranks.first and missing):
            self._keeper.save(run, last=True)
        with self._ranks.agreed():
            if self._panel is not None and not self._stopped:
                # Sharded checkpoints that a killed run left have no official folder.
                if (self._output / "checkpoints" / step_name(state.step)).is_dir():
                    self._panel.judge(state.step)
                self._panel.finish()
        for segment, length in sorted(state.skipped.items()):
            log.info(f"left out: segment {segment} needs {length} positions, more than a row has")
        unreadable = self._reporter.held_unreadable | state.unreadable
        for reason in unreadable.values():
            log.info(f"left out: {reason}")
        finished, adapter = self._output / "latest", None
        if run.trainee.lora is not None:
            adapter = str(finished)
            finished = finished if self._stopped else self._merged()
        return TrainResult(
            str(finished),
            state.step,
            math.nan if state.first_loss is None else state.first_loss,
            math.nan if state.last_loss is None else state.last_loss,
            time.perf_counter() - started,
            self._stopped,
            state.realised.layouts,
            state.realised.languages,
            state.skipped,
            state.bad_steps,
            state.audio_s / 3600,
            self._reporter.validated,
            adapter,
            unreadable,
            best=self._best(),
            ended_early=self._ended,
        )

    def _best(self) -> str | None:
        link = self._output / "best"
        return str(link) if self._config.validation.best is not None and link.is_dir() else None

    def _merged(self) -> Path:
        with self._ranks.agreed():
            if self._lineage is None:
                return self._output / "merged"
            return save_merged(self._output, self._saved, self._lineage)

    def _phase(self, name: str, phase: Phase, mixture: Mixture, segments: int, first: int, last: int) -> None:
        """Run those of the steps `first`..`last` - 1 that are not done yet.

        Every rank plans all rows of a step and takes every world-th row. So neither the order of the data nor the position after
        a resume depends on the number of ranks. Planning is part of the prefetch, and of the time that a step waits.
        """
        state, reporter = self._state, self._reporter
        make = self._rows(name, phase, mixture)
        self._stepper.begin()
        for made in self._ahead.steps(make, range(state.step, last)):
            ready = self._stepper.ready(made, self._asked_to_stop)
            if ready is None:
                self._stopped = True
                log.info(f"asked to stop: saving step {state.step}. Run the same command to resume.")
                return
            report = self._stepper.take(phase, state.step - first, state.step, ready)
            reporter.left_out(state.record(ready.rows, report, segments))
            if self._lineage is not None:
                self._lineage.note(state.step, name, ready.rows)
            if report.taken:
                self._guard.taken(report.total)
                self._average()
            elif report.patches:
                self._skip(name, phase, report, ready.rows)
            reporter.step(report)
            with self._stepper.aside():
                reporter.validate_if_due()
                self._save_if_due()
                self._end_if_best()
            del made, ready  # and with them the samples of this step
            if self._ended:
                break
        reporter.phase_ended(name, mixture)

    def _rows(self, name: str, phase: Phase, mixture: Mixture) -> Callable[[int], StepRows]:
        """Return the function that makes the rows of a step, starting at the run's position in the phase."""
        for note in mixture.notes():
            log.info(note)
        too_long: dict[str, int] = {}
        rows = RowStream(mixture, self._planner, phase, too_long)
        if self._state.rows.get("phase") == name:
            rows.seek(self._state.rows["at"])
        else:
            self._state.rows = {"phase": name, "at": rows.state()}

        def prepare(step: int, planned: Sequence[Sequence[Planned]]) -> list[MicroBatch]:
            return self._batches.micro_batches(phase, step, planned[self._ranks.rank :: self._ranks.world])

        return step_maker(rows, phase.rows * phase.accumulate, prepare, too_long)

    def _average(self) -> None:
        if self._saved.average is not None:
            self._saved.average.update(self._saved.trainee.model, self._state.step)

    def _save_if_due(self) -> None:
        step, best = self._state.step, self._config.validation.best
        self._panel_due = self._panel_due or (best is not None and step % best.every == 0)
        self._due = self._due or self._panel_due or step % self._config.checkpoint.every == 0
        # Not during a series of bad steps: a rollback needs a checkpoint from before it.
        if self._due and not self._state.bad_in_a_row:
            self._keeper.save(self._saved, export=self._panel_due)
            if self._panel_due:
                self._keeper.settle(wait=True)
                # The other ranks wait here for the verdict.
                with self._ranks.agreed():
                    if self._panel is not None:
                        self._panel.judge(step)
            self._due = self._panel_due = False
        elif step % self._config.log_every == 0:
            self._keeper.settle()
            if self._panel is not None:
                self._panel.poll()

    def _end_if_best(self, now: bool = False) -> None:
        """End the run if a panel says so, at steps with a panel or a line on the console, or `now`. All ranks must call it."""
        best, step = self._config.validation.best, self._state.step
        if best is None or best.patience is None:
            return
        if not now and step % best.every and step % self._config.log_every:
            return
        if self._ranks.any(self._panel is not None and bool(self._panel.stop)):
            self._ended = True
            if self._panel is not None:
                log.info(f"step {self._state.step}: the run ends early: {self._panel.stop}")

    def _skip(self, name: str, phase: Phase, report: StepReport, rows: StepRows) -> None:
        """Record a step without an update; after too many in a row restore earlier weights. Raises TrainError if none are left."""
        state, config = self._state, self._config
        self._reporter.skipped(self._guard.refused(state.step, report.total, report.grad_norm, rows.planned))
        if state.bad_in_a_row < config.guard.max_bad_steps:
            return
        self._keeper.settle(wait=True)
        before = latest(self._output, until=state.step - state.bad_in_a_row)
        bad = f"{state.bad_in_a_row} steps in a row had a loss that was NaN, infinite or a spike"
        if before is None or state.rollbacks >= config.guard.rollbacks:
            raise TrainError(
                f"{bad}; lower the learning rate (--set phases.{name}.lr={phase.lr / 3:.1e}) and run again to resume"
                f" from {before.name if before else 'the start'}"
            )
        with self._ranks.agreed():
            restore(self._output, before, self._saved)
        # Restore only the weights and what belongs to them: the counts and the data continue.
        self._saved.state = state
        state.rollbacks += 1
        state.bad_in_a_row = 0
        log.info(f"step {state.step}: {bad}; weights are those of {step_name(before.step)} again, the data continues")
