"""Validation: losses of held-out segments with fixed random numbers, so that steps can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from trainer.config import TrainConfig
from trainer.data.candidates import Choice
from trainer.data.holdout import stratified
from trainer.data.mixture import Candidate, hash_number
from trainer.data.packing import pack
from trainer.data.rows import Planned, Planner
from trainer.data.samples import SampleMaker, document_noise, make_all
from trainer.model.build import Trainee
from trainer.runtime.device import autocast
from trainer.runtime.ranks import Ranks
from trainer.runtime.stop_signal import never
from trainer.sample_kinds import BY_LAYOUT, LAYOUTS
from voxcpm.sequence.training_rows import pack_rows

_TIME_BINS = 4


class Validator:
    """Scores held-out segments, each in one layout that it can serve and that the phases use."""

    def __init__(
        self,
        config: TrainConfig,
        trainee: Trainee,
        held: Sequence[Candidate],
        maker: SampleMaker,
        device: torch.device,
        asked_to_stop: Callable[[], bool] = never,
        ranks: Ranks | None = None,
    ) -> None:
        """asked_to_stop: checked before each row; on several ranks it must return the same on all. ranks: those that share the
        rows (None: this one scores all)."""
        self._asked_to_stop, self._ranks = asked_to_stop, ranks or Ranks()
        self._config, self._trainee, self._maker, self._device = config, trainee, maker, device
        used = [name for name in LAYOUTS if any(getattr(phase.layouts, name) > 0 for phase in config.phases.values())]
        positions = max(phase.max_positions for phase in config.phases.values())
        planner = Planner(trainee.tokenizer, trainee.config)
        planned = []
        for index, (candidate, layout) in enumerate(stratified(held, config.validation.segments, used)):
            draw = hash_number("validation", candidate.segment_id)
            reference = None
            if BY_LAYOUT[layout].reference:
                reference = candidate.references[draw % len(candidate.references)][0]
            item = planner.plan(Choice(index, candidate, layout, reference, draw))
            if item.length <= positions:
                planned.append(item)
        self._rows = list(pack(planned, positions))
        self.unreadable: dict[str, str] = {}
        """Held-out segments that turned out to be damaged, with the reasons. They are not scored."""

    @property
    def segments(self) -> int:
        """Number of segments that are scored."""
        return sum(map(len, self._rows))

    @torch.no_grad()
    def run(self) -> dict[str, float]:
        """Return metrics `validation/...`: both losses, stop F1, the diffusion loss by layout, language and quarter of flow time.

        Conditions are never dropped for guidance, and the noise depends on the segment. The model is left in training mode. If
        asked to stop, it returns no metrics: the scores of some rows are not those of all rows.
        """
        model = self._trainee.model.eval()
        sums = _Sums()
        for row, counts in self._shared_rows():
            if self._asked_to_stop():
                model.train()
                return {}
            with self._ranks.agreed():
                samples, unreadable = make_all(self._maker, [row], self._trainee.config)
                batch = pack_rows(samples)
            assert batch.document_ids is not None
            seeds = {(0, i): item.choice.seed for i, item in enumerate(row)}
            noise = document_noise(self._trainee.config, batch, seeds)
            noise = replace(noise, cfg_keep_uniform=torch.ones_like(noise.cfg_keep_uniform))
            with autocast(self._config, self._device):
                losses = model.training_losses(batch.to(self._device), noise)
            if not counts:
                continue
            sums.unreadable |= unreadable
            learnt = batch.loss_mask.bool()
            labels = batch.stop_labels[learnt]
            logits = losses.stop_logits.float().cpu()
            for crossed in torch.nn.functional.cross_entropy(logits, labels, reduction="none").tolist():
                sums.add("validation/stop", crossed)
            says_stop = logits.argmax(dim=1) == 1
            sums.hits += int((says_stop & (labels == 1)).sum())
            sums.stops += int(says_stop.sum()) + int(labels.sum())
            places = zip(
                batch.document_ids[learnt].tolist(),
                losses.diffusion_per_position.cpu().tolist(),
                losses.t_per_position.cpu().tolist(),
                strict=True,
            )
            for document, error, t in places:
                for group in _groups(row[document], t):
                    sums.add(group, error)
        model.train()
        whole = _Sums.together(self._ranks.gathered(sums))
        self.unreadable |= whole.unreadable
        return whole.metrics()

    def _shared_rows(self) -> Iterator[tuple[list[Planned], bool]]:
        """Yield (row, True if it counts) for this rank. All ranks get the same number of rows, since all compute a sharded model
        together. The last row is repeated to fill up, and does not count then."""
        for first in range(0, len(self._rows), self._ranks.world):
            mine = first + self._ranks.rank
            yield self._rows[min(mine, len(self._rows) - 1)], mine < len(self._rows)


@dataclass
class _Sums:
    """One rank's contribution to the metrics."""

    totals: dict[str, tuple[float, int]] = field(default_factory=dict)
    """(sum, count) by metric."""
    hits: int = 0
    stops: int = 0
    """Number of last patches that the model predicts, plus the number of true ones."""
    unreadable: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: float, count: int = 1) -> None:
        """Add values to a metric. value: their sum. count: their number."""
        total, before = self.totals.get(name, (0.0, 0))
        self.totals[name] = total + value, before + count

    @staticmethod
    def together(shares: list[_Sums]) -> _Sums:
        """Return the sum, in the order of the ranks."""
        whole = _Sums()
        for share in shares:
            for name, (total, count) in share.totals.items():
                whole.add(name, total, count)
            whole.hits, whole.stops = whole.hits + share.hits, whole.stops + share.stops
            whole.unreadable |= share.unreadable
        return whole

    def metrics(self) -> dict[str, float]:
        """Return means by name, and the stop F1. Losses are NaN if no segment could be read."""
        missing = dict.fromkeys(("validation/diffusion", "validation/stop"), float("nan"))
        means = {name: total / count for name, (total, count) in sorted(self.totals.items())}
        return missing | means | {"validation/stop_f1": 2 * self.hits / max(1, self.stops)}


def _groups(item: Planned, t: float) -> tuple[str, ...]:
    """Return the metrics that the error at one patch counts for. t: flow time, 0 is data and 1 is noise."""
    quarter = min(_TIME_BINS - 1, int(t * _TIME_BINS))
    edges = f"{quarter / _TIME_BINS:g}-{(quarter + 1) / _TIME_BINS:g}"
    return (
        "validation/diffusion",
        f"validation/diffusion_{item.choice.layout}",
        f"validation/diffusion_{item.choice.candidate.language or 'unknown'}",
        f"validation/diffusion_t{edges}",
    )
