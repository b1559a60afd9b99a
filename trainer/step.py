"""One optimiser step: samples made and packed, both losses, a checked gradient, an update."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from trainer.build import Trainee
from trainer.config import Phase, TrainConfig
from trainer.data import Planned, SampleMaker
from trainer.mixture import hash_number
from trainer.optim import learning_rate
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
    seconds: float
    waited_s: float
    """Seconds of these until the samples were there (audio, codec, packing)."""

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
    ) -> None:
        self._config, self._trainee, self._optimizer = config, trainee, optimizer
        self._maker, self._device = maker, device
        self._trained = [p for p in trainee.model.parameters() if p.requires_grad]

    def take(self, phase: Phase, step_in_phase: int, step: int, planned: list[list[Planned]]) -> StepReport:
        """One step over rows of planned samples; `step` counts over all phases, from 0. The weights stay as they are when the
        report is not `finite`."""
        started = time.perf_counter()
        parts = [planned[at : at + phase.rows] for at in range(0, len(planned), phase.rows)]
        batches = [(self.batch(rows), rows) for rows in parts]
        waited = time.perf_counter() - started
        # Normalised over the whole step, so that how it is split into parts changes nothing.
        patches = max(1, sum(int(batch.loss_mask.sum()) for batch, _ in batches))
        frames = patches * self._trainee.config.patch_size
        rate = learning_rate(phase, step_in_phase)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        diffusion = stop = 0.0
        weight = self._config.optim.stop_weight
        progress = step / self._config.total_steps
        for batch, rows in batches:
            noise = self._noise(batch, rows, step)
            with autocast(self._config, self._device):
                losses = self._trainee.model.training_losses(batch.to(self._device), noise, progress)
            mine = losses.diffusion_sum / frames, losses.stop_sum / patches
            (mine[0] + weight * mine[1]).backward()
            diffusion, stop = diffusion + float(mine[0].detach()), stop + float(mine[1].detach())
        norm = float(torch.nn.utils.clip_grad_norm_(self._trained, self._config.optim.clip))
        report = StepReport(
            diffusion,
            stop,
            diffusion + weight * stop,
            norm,
            rate,
            positions=sum(item.length for row in planned for item in row),
            slots=sum(batch.text_tokens.numel() for batch, _ in batches),
            patches=patches,
            seconds=time.perf_counter() - started,
            waited_s=waited,
        )
        if report.finite:
            self._optimizer.step()
        return report

    def batch(self, rows: list[list[Planned]]) -> TrainingBatch:
        """Rows of planned samples with their audio."""
        return pack_rows([[self._maker.make(item) for item in row] for row in rows])

    def _noise(self, batch: TrainingBatch, rows: list[list[Planned]], step: int) -> TrainingNoise:
        """Random numbers that belong to (seed, step, sample), wherever the sample was packed."""
        seeds = {
            (row, document): hash_number(self._config.seed, step, item.choice.seed)
            for row, items in enumerate(rows)
            for document, item in enumerate(items)
        }
        return document_noise(self._trainee, batch, seeds)


def document_noise(trainee: Trainee, batch: TrainingBatch, seeds: dict[tuple[int, int], int]) -> TrainingNoise:
    """Random numbers of a packed batch, by (row, document)."""
    assert batch.document_ids is not None
    shape = (trainee.config.patch_size, trainee.config.feat_dim)
    log_norm = trainee.config.dit_config.cfm_config.t_scheduler == "log-norm"
    return TrainingNoise.for_documents(batch.document_ids, seeds, shape, log_norm)


def autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """bfloat16 arithmetic over float32 weights, where the config asks for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.dtype == "bfloat16")
