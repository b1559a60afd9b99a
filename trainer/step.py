"""One optimiser step: samples made and packed, both losses, a checked gradient, an update."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from time import perf_counter

import numpy as np
import torch

from trainer.build import Trainee
from trainer.config import Phase, TrainConfig
from trainer.cpu_linear import is_quicker_here, use_cpu_linears
from trainer.data import Planned, SampleMaker
from trainer.device import is_compiled
from trainer.history import blur_history
from trainer.mixture import Choice
from trainer.optim import clip_gradients, learning_rate
from trainer.parallelize import Parallel
from trainer.ranks import Ranks
from trainer.readable import make_readable
from trainer.seeds import hash_number
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
    """From the report before it to this one: with everything between two steps but validation and checkpoints."""
    waited_s: float
    """Seconds of these until the samples were there (planning, audio, codec, packing)."""
    groups: dict[str, float] = field(default_factory=dict)
    """The diffusion loss by layout and by language: "layout_basic", "language_en" ..."""
    taken: bool = True
    """Whether the weights were changed: not where nothing was learnt, the loss is no number, or the guard refuses it."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Segments that are damaged, and why: the samples that need them were left out."""

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
            "speed/step_s": self.seconds,
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
        plain = device.type == "cpu" and config.dtype == "float32" and not is_compiled(config, device)
        if plain and not mean_flow and is_quicker_here():
            use_cpu_linears(trainee.model)
        self._trained = [p for p in trainee.model.parameters() if p.requires_grad]
        self._began: float | None = None

    def begin(self) -> None:
        """Start the clock of the next step: what came before belongs to none."""
        self._began = perf_counter()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave what is done in this context out of the next step's time."""
        started = perf_counter()
        try:
            yield
        finally:
            if self._began is not None:
                self._began += perf_counter() - started

    def prepare(self, phase: Phase, step: int, planned: Sequence[Sequence[Planned]]) -> list[Part]:
        """This rank's rows of planned samples with their audio and random numbers, on the device, `phase.rows` at a time.

        It touches neither weights nor the global random numbers: it may run in a thread of its own while a step is computed.
        """
        parts = [planned[at : at + phase.rows] for at in range(0, len(planned), phase.rows)]
        return [self._part(rows, step) for rows in parts]

    def take(self, phase: Phase, step_in_phase: int, step: int, prepared: Callable[[], list[Part]]) -> StepReport:
        """One step over the parts that `prepared` gives (see `prepare`); `step` counts over all phases, from 0. The report is of
        all ranks together. The weights stay as they are when it is not `taken`. Its time runs from the report before it."""
        started = perf_counter()
        began = started if self._began is None else self._began
        ranks = self._parallel.ranks
        with ranks.agreed():
            parts = prepared()
        waited = perf_counter() - started
        # What is drawn from the global generator (dropout) follows from step and rank, so that no state of it is kept.
        torch.manual_seed(hash_number(self._config.seed, step, ranks.rank))
        # Normalised over the whole step, so that how it is split into parts and among ranks changes nothing.
        learnt = round(ranks.sums([sum(part.patches for part in parts)])[0])
        patches = max(1, learnt)
        frames = patches * self._trainee.config.patch_size
        rate = learning_rate(phase, step_in_phase)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        weight = self._config.optim.stop_weight
        progress = step / self._config.total_steps
        # Read when all is under way: reading a value waits for the device.
        found: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        for number, part in enumerate(parts):
            with self._parallel.part(last=number == len(parts) - 1):
                with autocast(self._config, self._device):
                    losses = self._parallel.losses(part.batch, part.noise, progress)
                mine = losses.diffusion_sum / frames, losses.stop_sum / patches
                # Gradients are averaged over the ranks; their sum is wanted.
                (ranks.world * (mine[0] + weight * mine[1])).backward()
            found.append((mine[0].detach(), mine[1].detach(), losses.diffusion_per_position))
        norm = clip_gradients(self._trained, self._config.optim.clip)
        own = _Share()
        for part, (diffusion, stop, errors) in zip(parts, found, strict=True):
            own.add(part, float(diffusion), float(stop), errors)
        whole = _Share.together([_Share(**values) for values in ranks.gathered(asdict(own))])
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
            waited_s=waited,
            groups={name: total / whole.counts[name] for name, total in sorted(whole.totals.items())},
            unreadable=whole.unreadable,
        )
        taken = learnt > 0 and report.finite and self._accepts(report.total)
        if taken:
            self._optimizer.step()
        return replace(report, taken=taken)

    def batch(self, rows: Sequence[Sequence[Planned]]) -> TrainingBatch:
        """Rows of planned samples with their audio, on the CPU."""
        return pack_rows([[self._maker.make(item) for item in row] for row in rows])

    def _part(self, rows: Sequence[Sequence[Planned]], step: int) -> Part:
        # A number for each (row, document): it belongs to (seed, step, sample), wherever the sample was packed.
        seeds = {
            (row, document): hash_number(self._config.seed, step, item.choice.seed)
            for row, items in enumerate(rows)
            for document, item in enumerate(items)
        }
        samples, unreadable = make_readable(self._maker, rows, self._trainee.config)
        batch = pack_rows(samples)
        assert batch.document_ids is not None
        heard = blur_history(batch, seeds, self._config.history_noise, self._config.history_drop)
        learnt = batch.loss_mask
        return Part(
            heard.to(self._device),
            document_noise(self._trainee, batch, seeds).to(self._device),
            tuple(item.choice for row in rows for item in row),
            torch.stack((learnt.nonzero()[:, 0], batch.document_ids[learnt])).numpy(),
            tuple(len(row) for row in rows),
            positions=sum(sample.length for row in samples for sample in row),
            slots=batch.text_tokens.numel(),
            patches=int(learnt.sum()),
            audio=int(batch.audio_mask.sum()),
            unreadable=unreadable,
        )


@dataclass(frozen=True)
class Part:
    """What goes through the model at once, with its random numbers, on the device."""

    batch: TrainingBatch
    noise: TrainingNoise
    choices: tuple[Choice, ...]
    """Of all documents, row by row."""
    learnt: np.ndarray
    """[2, N] int64: row and document of each position that is learnt."""
    documents: tuple[int, ...]
    """Documents in each row."""
    positions: int
    slots: int
    patches: int
    audio: int
    unreadable: dict[str, str]
    """Segments that are damaged, and why; in their samples' place there is nothing to learn."""

    def groups(self, errors: np.ndarray) -> Iterator[tuple[str, float, int]]:
        """(name, sum, count) of the errors [N] at learnt positions, for each layout and each language."""
        first = np.concatenate(([0], np.cumsum(self.documents)))[self.learnt[0]]
        of_document = first + self.learnt[1]
        totals = np.bincount(of_document, errors, len(self.choices))
        counts = np.bincount(of_document, minlength=len(self.choices))
        for choice, total, count in zip(self.choices, totals.tolist(), counts.tolist(), strict=True):
            if not count:
                continue
            for name in (f"layout_{choice.layout}", f"language_{choice.candidate.language or 'unknown'}"):
                yield name, total, count


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
    unreadable: dict[str, str] = field(default_factory=dict)

    def add(self, part: Part, diffusion: float, stop: float, errors: torch.Tensor) -> None:
        """Add a part, its losses, and the errors at its learnt positions to their groups."""
        self.diffusion += diffusion
        self.stop += stop
        self.positions += part.positions
        self.slots += part.slots
        self.audio += part.audio
        self.unreadable |= part.unreadable
        for name, total, count in part.groups(errors.double().cpu().numpy()):
            self.totals[name] = self.totals.get(name, 0.0) + total
            self.counts[name] = self.counts.get(name, 0) + count

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
            whole.unreadable |= share.unreadable
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
