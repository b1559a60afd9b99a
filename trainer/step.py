"""One optimiser step: samples made and packed, both losses, a checked gradient, an update."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

import torch

from trainer.build import Trainee
from trainer.config import Phase, TrainConfig
from trainer.cpu_linear import use_cpu_linears
from trainer.data import Planned, SampleMaker
from trainer.history import blur_history
from trainer.mixture import hash_number
from trainer.optim import clip_gradients, learning_rate
from trainer.parallelize import Parallel
from trainer.ranks import Ranks
from voxcpm.samples import pack_rows
from voxcpm.training import TrainingBatch, TrainingNoise


@dataclass(frozen=True)
class StepReport:
    """What a step measured. Losses are means over its target patches, taken before the update."""

    diffusion: float
    stop: float
    total: float
    """diffusion + stop_weight * stop: what was minimised."""
    grad_norm: float
    """Before clipping."""
    lr: float
    positions: int
    """Text tokens, patches and marks, without padding."""
    slots: int
    """With padding."""
    patches: int
    """Target patches: those with a loss."""
    audio: int
    """All patches: targets, given beginnings, references."""
    seconds: float
    waited_s: float
    """Seconds of these until the samples were there (audio, codec, packing)."""
    groups: dict[str, float] = field(default_factory=dict)
    """The diffusion loss by layout and by language: "layout_basic", "language_en" ..."""
    taken: bool = True
    """Whether the weights were changed: not where the loss is no number, or the guard refuses it."""

    @property
    def finite(self) -> bool:
        """Whether loss and gradient are numbers; the weights were changed only then."""
        return math.isfinite(self.total) and math.isfinite(self.grad_norm)

    def metrics(self) -> dict[str, float]:
        """The values by the names they are written under."""
        return {
            "loss/diffusion": self.diffusion,
            "loss/stop": self.stop,
            "loss/total": self.total,
            "optim/grad_norm": self.grad_norm,
            "optim/lr": self.lr,
            "speed/positions_per_s": self.positions / self.seconds,
            "speed/patches_per_s": self.patches / self.seconds,
            "speed/waited_share": self.waited_s / self.seconds,
            "data/pad_share": 1 - self.positions / self.slots,
            **{f"loss/{name}": value for name, value in self.groups.items()},
        }


class Stepper:
    """Takes optimiser steps on a trainee."""

    def __init__(
        self,
        config: TrainConfig,
        trainee: Trainee,
        optimizer: torch.optim.Optimizer,
        maker: SampleMaker,
        device: torch.device,
        parallel: Parallel | None = None,
        accepts: Callable[[float], bool] = lambda loss: True,
    ) -> None:
        """parallel: how the model runs on several ranks (None: on one); accepts: whether a step of this loss is taken."""
        self._parallel = parallel or Parallel(Ranks(), trainee.model)
        self._accepts = accepts
        self._config, self._trainee, self._optimizer = config, trainee, optimizer
        self._maker, self._device = maker, device
        mean_flow = trainee.config.dit_config.dit_mean_mode  # differentiates forwards, through torch's own linears
        if device.type == "cpu" and config.dtype == "float32" and not config.compile and not mean_flow:
            use_cpu_linears(trainee.model)
        self._trained = [p for p in trainee.model.parameters() if p.requires_grad]

    def take(self, phase: Phase, step_in_phase: int, step: int, planned: list[list[Planned]]) -> StepReport:
        """One step over this rank's rows of planned samples; `step` counts over all phases, from 0. The report is of all ranks
        together. The weights stay as they are when it is not `taken`."""
        started = time.perf_counter()
        ranks = self._parallel.ranks
        # What is drawn from the global generator (dropout) follows from step and rank, so that no state of it is kept.
        torch.manual_seed(hash_number(self._config.seed, step, ranks.rank))
        parts = [planned[at : at + phase.rows] for at in range(0, len(planned), phase.rows)]
        with ranks.agreed():
            batches = [(self.batch(rows), rows) for rows in parts]
        waited = time.perf_counter() - started
        # Normalised over the whole step, so that how it is split into parts and among ranks changes nothing.
        patches = max(1, round(ranks.sums([sum(int(batch.loss_mask.sum()) for batch, _ in batches)])[0]))
        frames = patches * self._trainee.config.patch_size
        rate = learning_rate(phase, step_in_phase)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        own = _Share()
        weight = self._config.optim.stop_weight
        progress = step / self._config.total_steps
        for number, (batch, rows) in enumerate(batches):
            seeds = self._seeds(rows, step)
            noise = document_noise(self._trainee, batch, seeds)
            heard = blur_history(batch, seeds, self._config.history_noise, self._config.history_drop)
            with self._parallel.part(last=number == len(batches) - 1):
                with autocast(self._config, self._device):
                    losses = self._parallel.losses(heard.to(self._device), noise, progress)
                mine = losses.diffusion_sum / frames, losses.stop_sum / patches
                # Gradients are averaged over the ranks; their sum is wanted.
                (ranks.world * (mine[0] + weight * mine[1])).backward()
            own.diffusion += float(mine[0].detach())
            own.stop += float(mine[1].detach())
            own.slots += batch.text_tokens.numel()
            own.audio += int(batch.audio_mask.sum())
            own.positions += sum(item.length for row in rows for item in row)
            own.count(batch, rows, losses.diffusion_per_position)
        norm = clip_gradients(self._trained, self._config.optim.clip)
        whole = _Share.together([_Share(**values) for values in ranks.gathered(asdict(own))])
        report = StepReport(
            whole.diffusion,
            whole.stop,
            whole.diffusion + weight * whole.stop,
            norm,
            rate,
            positions=whole.positions,
            slots=whole.slots,
            patches=patches,
            audio=whole.audio,
            seconds=time.perf_counter() - started,
            waited_s=waited,
            groups={name: total / whole.counts[name] for name, total in sorted(whole.totals.items())},
        )
        taken = report.finite and self._accepts(report.total)
        if taken:
            self._optimizer.step()
        return replace(report, taken=taken)

    def batch(self, rows: list[list[Planned]]) -> TrainingBatch:
        """Rows of planned samples with their audio."""
        return pack_rows([[self._maker.make(item) for item in row] for row in rows])

    def _seeds(self, rows: list[list[Planned]], step: int) -> dict[tuple[int, int], int]:
        """A number for each (row, document): it belongs to (seed, step, sample), wherever the sample was packed."""
        return {
            (row, document): hash_number(self._config.seed, step, item.choice.seed)
            for row, items in enumerate(rows)
            for document, item in enumerate(items)
        }


@dataclass
class _Share:
    """What one rank adds to a step's report."""

    diffusion: float = 0.0
    stop: float = 0.0
    positions: int = 0
    slots: int = 0
    audio: int = 0
    totals: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, batch: TrainingBatch, rows: list[list[Planned]], errors: torch.Tensor) -> None:
        """Add the errors at the batch's loss positions to their groups."""
        assert batch.document_ids is not None
        learnt = batch.loss_mask.nonzero()[:, 0].tolist()
        documents = batch.document_ids[batch.loss_mask].tolist()
        for row, document, error in zip(learnt, documents, errors.cpu().tolist(), strict=True):
            choice = rows[row][document].choice
            for name in (f"layout_{choice.layout}", f"language_{choice.candidate.language or 'unknown'}"):
                self.totals[name] = self.totals.get(name, 0.0) + error
                self.counts[name] = self.counts.get(name, 0) + 1

    @staticmethod
    def together(shares: list[_Share]) -> _Share:
        """The sum, in the order of the ranks."""
        whole = _Share()
        for share in shares:
            whole.diffusion += share.diffusion
            whole.stop += share.stop
            whole.positions += share.positions
            whole.slots += share.slots
            whole.audio += share.audio
            for name, total in share.totals.items():
                whole.totals[name] = whole.totals.get(name, 0.0) + total
                whole.counts[name] = whole.counts.get(name, 0) + share.counts[name]
        return whole


def document_noise(trainee: Trainee, batch: TrainingBatch, seeds: dict[tuple[int, int], int]) -> TrainingNoise:
    """Random numbers of a packed batch, by (row, document)."""
    assert batch.document_ids is not None
    shape = (trainee.config.patch_size, trainee.config.feat_dim)
    log_norm = trainee.config.dit_config.cfm_config.t_scheduler == "log-norm"
    return TrainingNoise.for_documents(batch.document_ids, seeds, shape, log_norm)


def autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """bfloat16 arithmetic over float32 weights, where the config asks for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.dtype == "bfloat16")
