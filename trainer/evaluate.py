"""Validation: the losses of held-out segments with random numbers that never change, so that steps can be compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from trainer.build import Trainee
from trainer.config import TrainConfig
from trainer.data import Planned, Planner, SampleMaker
from trainer.mixture import Candidate, Choice, hash_number
from trainer.packing import pack
from trainer.readable import make_readable
from trainer.signals import never
from trainer.step import autocast, document_noise
from voxcpm.samples import pack_rows

_TIME_BINS = 4


class Validator:
    """Scores held-out segments, each in one layout that it can serve and that the phases use."""

    def __init__(
        self,
        config: TrainConfig,
        trainee: Trainee,
        held: list[Candidate],
        maker: SampleMaker,
        device: torch.device,
        asked_to_stop: Callable[[], bool] = never,
    ) -> None:
        """asked_to_stop: looked at before each row; on several ranks it must tell all of them the same."""
        self._asked_to_stop = asked_to_stop
        self._config, self._trainee, self._maker, self._device = config, trainee, maker, device
        used = {
            name
            for phase in config.phases.values()
            for name, weight in phase.layouts.model_dump().items()
            if weight > 0
        }
        positions = max(phase.max_positions for phase in config.phases.values())
        planner = Planner(trainee.tokenizer, trainee.config)
        planned = []
        for index, candidate in enumerate(held[: config.validation.segments]):
            able = [name for name in candidate.layouts() if name in used] or ["basic"]
            draw = hash_number("validation", candidate.segment_id)
            layout = able[draw % len(able)]
            reference = None
            if layout in ("reference", "controllable", "reference_continuation"):
                reference = candidate.references[draw % len(candidate.references)][0]
            item = planner.plan(Choice(index, candidate, layout, reference, draw))
            if item.length <= positions:
                planned.append(item)
        self._rows = list(pack(planned, positions))
        self.unreadable: dict[str, str] = {}
        """Held-out segments that turned out to be damaged, and why: they are not scored."""

    @property
    def segments(self) -> int:
        """Segments that are scored."""
        return sum(map(len, self._rows))

    @torch.no_grad()
    def run(self) -> dict[str, float]:
        """Metrics `validation/...`: both losses, stop F1, the diffusion loss by layout, language and quarter of flow time.

        Nothing is dropped for guidance, the noise belongs to the segment. The model is left in training mode. Asked to stop,
        it returns nothing at all: scores of some rows are not those of all.
        """
        model = self._trainee.model.eval()
        errors: dict[str, list[float]] = defaultdict(list)
        crossed: list[Tensor] = []
        hits = claimed = wanted = 0
        for row in self._rows:
            if self._asked_to_stop():
                model.train()
                return {}
            samples, unreadable = make_readable(self._maker, [row], self._trainee.config)
            self.unreadable |= unreadable
            batch = pack_rows(samples)
            assert batch.document_ids is not None
            seeds = {(0, i): item.choice.seed for i, item in enumerate(row)}
            noise = document_noise(self._trainee, batch, seeds)
            noise = replace(noise, cfg_keep_uniform=torch.ones_like(noise.cfg_keep_uniform))
            with autocast(self._config, self._device):
                losses = model.training_losses(batch.to(self._device), noise)
            learnt = batch.loss_mask.bool()
            labels = batch.stop_labels[learnt]
            logits = losses.stop_logits.float().cpu()
            crossed.append(torch.nn.functional.cross_entropy(logits, labels, reduction="none"))
            says_stop = logits.argmax(dim=1) == 1
            hits += int((says_stop & (labels == 1)).sum())
            claimed, wanted = claimed + int(says_stop.sum()), wanted + int(labels.sum())
            places = zip(
                batch.document_ids[learnt].tolist(),
                losses.diffusion_per_position.cpu().tolist(),
                losses.t_per_position.cpu().tolist(),
                strict=True,
            )
            for document, error, t in places:
                for group in _groups(row[document], t):
                    errors[group].append(error)
        model.train()
        return {
            "validation/diffusion": float("nan"),  # where no segment can be read
            **{name: sum(values) / len(values) for name, values in sorted(errors.items())},
            "validation/stop": float(torch.cat(crossed).mean()) if crossed else float("nan"),
            "validation/stop_f1": 2 * hits / max(1, claimed + wanted),
        }


def _groups(item: Planned, t: float) -> tuple[str, ...]:
    """The metrics that the error at one patch counts for; t 0 is data, 1 is noise."""
    quarter = min(_TIME_BINS - 1, int(t * _TIME_BINS))
    edges = f"{quarter / _TIME_BINS:g}-{(quarter + 1) / _TIME_BINS:g}"
    return (
        "validation/diffusion",
        f"validation/diffusion_{item.choice.layout}",
        f"validation/diffusion_{item.choice.candidate.language or 'unknown'}",
        f"validation/diffusion_t{edges}",
    )
