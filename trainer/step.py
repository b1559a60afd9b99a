"""One optimizer step: both losses, a checked gradient, an update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from math import isfinite
from time import perf_counter

import torch

from trainer.config import Phase, TrainConfig
from trainer.data.samples import MicroBatch, StepRows
from trainer.model.build import Trainee
from trainer.optim import clip_gradients, learning_rate
from trainer.result import StepReport
from trainer.runtime.device import autocast, is_compiled
from trainer.runtime.parallelize import Parallel
from trainer.runtime.ranks import Ranks
from trainer.runtime.seeds import hash_number
from trainer.runtime.stop_signal import never
from voxcpm.kernels.trainable_linear import is_quicker_here, use_cpu_linears


class Stepper:
    """Takes optimizer steps on a trainee."""

    def __init__(
        self,
        config: TrainConfig,
        trainee: Trainee,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        parallel: Parallel | None = None,
        accepts: Callable[[float], bool] = lambda loss: True,
    ) -> None:
        """parallel: how the model runs on several ranks (None: on one). accepts: returns True if a step of this loss is taken."""
        self._parallel = parallel or Parallel(Ranks(), trainee.model)
        self._accepts = accepts
        self._config, self._trainee, self._optimizer = config, trainee, optimizer
        self._autocast, self._total_steps = autocast(config, device), config.total_steps
        mean_flow = trainee.config.dit_config.dit_mean_mode  # differentiates forwards: needs torch's own linears
        plain = device.type == "cpu" and config.compute.dtype == "float32" and not is_compiled(config, device)
        if plain and not mean_flow and is_quicker_here():
            use_cpu_linears(trainee.model)
        self._trained = [p for p in trainee.model.parameters() if p.requires_grad]
        self._began: float | None = None

    def begin(self) -> None:
        """Start the clock of the next step; the time before counts for no step."""
        self._began = perf_counter()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Exclude the time spent in this context from the next step's time."""
        started = perf_counter()
        try:
            yield
        finally:
            if self._began is not None:
                self._began += perf_counter() - started

    def ready(self, prepared: Callable[[], StepRows], asked_to_stop: Callable[[], bool] = never) -> Ready | None:
        """Wait on all ranks for the rows that `prepared` returns; one exchange between the ranks.

        asked_to_stop: returns True if this rank is asked to stop. Returns None if any rank is; no error is raised then.
        """
        started = perf_counter()
        found = self._parallel.ranks.count_unless(asked_to_stop(), prepared, _targets)
        return None if found is None else Ready(*found, started, perf_counter() - started)

    def take(self, phase: Phase, step_in_phase: int, step: int, ready: Ready) -> StepReport:
        """Compute one step over the rows of `ready` and return the report of all ranks together.

        `step` counts over all phases, from 0. If the report is not `taken`, the weights did not change. Its time runs from the
        previous report.
        """
        began = ready.started if self._began is None else self._began
        ranks, parts, learnt = self._parallel.ranks, ready.rows.parts, ready.learnt
        # The global generator (dropout) is seeded by step and rank, so that its state need not be saved.
        torch.manual_seed(hash_number(self._config.seed, step, ranks.rank))
        # Normalized over the whole step, so that the result does not depend on its division into parts and ranks.
        patches = max(1, learnt)
        frames = patches * self._trainee.config.patch_size
        rate = learning_rate(phase, step_in_phase)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        weight = self._config.optim.stop_weight
        progress = step / self._total_steps
        # Read after all work is queued: reading a value waits for the device.
        found: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        for number, part in enumerate(parts):
            # Copies of a model exchange gradients once, in the last part.
            with nullcontext() if number == len(parts) - 1 else self._parallel.no_sync():
                with self._autocast:
                    losses = self._parallel.losses(part.batch, part.noise, progress)
                mine = losses.diffusion_sum / frames, losses.stop_sum / patches
                # Gradients are averaged over the ranks, but their sum is needed.
                (ranks.world * (mine[0] + weight * mine[1])).backward()
            found.append((mine[0].detach(), mine[1].detach(), losses.diffusion_per_position))
        norm = clip_gradients(self._trained, self._config.optim.clip)
        own = StepSums()
        for part, (diffusion, stop, errors) in zip(parts, found, strict=True):
            own.add(part, float(diffusion), float(stop), errors)
        whole = own.of_all(ranks, list(ready.rows.realised.groups()))
        self._began = perf_counter()
        report = StepReport(
            whole.diffusion,
            whole.stop,
            whole.diffusion + weight * whole.stop,
            norm,
            rate,
            positions=whole.positions,
            slots=whole.slots,
            patches=learnt,
            audio=whole.audio,
            seconds=self._began - began,
            waited_s=ready.waited_s,
            groups={name: total / whole.counts[name] for name, total in sorted(whole.totals.items())},
            unreadable=whole.unreadable,
        )
        taken = learnt > 0 and isfinite(report.total) and isfinite(norm) and self._accepts(report.total)
        if taken:
            self._optimizer.step()
        return replace(report, taken=taken)


@dataclass(frozen=True)
class Ready:
    """The rows of one step with this rank's part of them, and the total of all ranks."""

    rows: StepRows
    learnt: int
    """Number of positions with a loss on all ranks."""
    started: float
    """When the wait for the rows began, on the clock of `perf_counter`."""
    waited_s: float


def _targets(rows: StepRows) -> int:
    """Return the number of positions with a loss on this rank."""
    return sum(part.patches for part in rows.parts)


@dataclass
class StepSums:
    """One rank's contribution to a step's report."""

    diffusion: float = 0.0
    stop: float = 0.0
    positions: int = 0
    slots: int = 0
    audio: int = 0
    totals: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    def add(self, part: MicroBatch, diffusion: float, stop: float, errors: torch.Tensor) -> None:
        """Add a part, its losses, and the errors at its learned positions to their groups."""
        self.diffusion += diffusion
        self.stop += stop
        self.positions += part.positions
        self.slots += part.slots
        self.audio += part.audio
        self.unreadable |= part.unreadable
        for name, total, count in part.groups(errors.double().cpu().numpy()):
            self.totals[name] = self.totals.get(name, 0.0) + total
            self.counts[name] = self.counts.get(name, 0) + count

    def of_all(self, ranks: Ranks, groups: Sequence[str]) -> StepSums:
        """Return the sum over the ranks, in their order; one exchange. groups: those of all ranks, in the same order on each."""
        if ranks.world == 1:
            return self
        whole = StepSums()
        rows = ranks.by_rank(self._numbers(groups))
        for diffusion, stop, positions, slots, audio, _, *by_group in rows:
            whole.diffusion += diffusion
            whole.stop += stop
            whole.positions += int(positions)
            whole.slots += int(slots)
            whole.audio += int(audio)
            for name, total, count in zip(groups, by_group[::2], by_group[1::2], strict=True):
                if count:
                    whole.totals[name] = whole.totals.get(name, 0.0) + total
                    whole.counts[name] = whole.counts.get(name, 0) + int(count)
        # Strings need two more exchanges: only in the rare step that has a damaged clip.
        if any(row[5] for row in rows):
            for unreadable in ranks.gathered(self.unreadable):
                whole.unreadable |= unreadable
        return whole

    def _numbers(self, groups: Sequence[str]) -> list[float]:
        unknown = self.totals.keys() - set(groups)
        assert not unknown, unknown
        basic = (self.diffusion, self.stop, self.positions, self.slots, self.audio, len(self.unreadable))
        by_group = (value for name in groups for value in (self.totals.get(name, 0.0), self.counts.get(name, 0)))
        return [float(value) for value in (*basic, *by_group)]
