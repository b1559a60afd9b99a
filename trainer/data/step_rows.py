"""The rows of one step: planned, made into samples, packed, with their random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np

from trainer.data.candidates import Choice
from trainer.data.rows import Planned
from trainer.data.sample_counts import SampleCounts
from voxcpm.config import VoxCPM2Config
from voxcpm.sequence.training_batch import TrainingBatch, TrainingNoise


@dataclass(frozen=True)
class MicroBatch:
    """What goes through the model at once, with its random numbers, on the device."""

    batch: TrainingBatch
    noise: TrainingNoise
    choices: tuple[Choice, ...]
    """Of all documents, row by row."""
    learnt: np.ndarray
    """[2, N] int64: row and document of each position that is learned."""
    documents: tuple[int, ...]
    """Documents in each row."""
    positions: int
    slots: int
    patches: int
    audio: int
    unreadable: dict[str, str]
    """Segments that are damaged, and why; in their samples' place there is nothing to learn."""

    def groups(self, errors: np.ndarray) -> Iterator[tuple[str, float, int]]:
        """(name, sum, count) of the errors [N] at learned positions, for each layout and each language."""
        first = np.concatenate(([0], np.cumsum(self.documents)))[self.learnt[0]]
        of_document = first + self.learnt[1]
        totals = np.bincount(of_document, errors, len(self.choices))
        counts = np.bincount(of_document, minlength=len(self.choices))
        for choice, total, count in zip(self.choices, totals.tolist(), counts.tolist(), strict=True):
            if not count:
                continue
            for name in (f"layout_{choice.layout}", f"language_{choice.candidate.language or 'unknown'}"):
                yield name, total, count


def document_noise(config: VoxCPM2Config, batch: TrainingBatch, seeds: dict[tuple[int, int], int]) -> TrainingNoise:
    """Random numbers of a packed batch, by (row, document)."""
    assert batch.document_ids is not None
    shape = (config.patch_size, config.feat_dim)
    log_norm = config.dit_config.cfm_config.t_scheduler == "log-norm"
    return TrainingNoise.for_documents(batch.document_ids, seeds, shape, log_norm)


@dataclass(frozen=True)
class StepRows:
    """What one step is made of."""

    planned: Sequence[Sequence[Planned]]
    """Its rows on all ranks."""
    realised: SampleCounts
    """What these are in numbers."""
    parts: list[MicroBatch]
    """This rank's rows with their audio, on the device."""
    after: dict[str, Any]
    """The place in the data behind them."""
    skipped: dict[str, int]
    """Segments that fitted no row so far in this phase, with the positions they need."""


class Rows(Protocol):
    """Endless rows with a place that can be saved."""

    def __iter__(self) -> Iterator[Any]: ...

    def state(self) -> dict[str, Any]: ...

    def tally(self, rows: Any) -> SampleCounts: ...


def step_maker(
    rows: Rows,
    each: int,
    prepare: Callable[[int, Sequence[Sequence[Planned]]], list[MicroBatch]],
    skipped: dict[str, int] | None = None,
) -> Callable[[int], StepRows]:
    """A function that plans the next `each` rows and makes this rank's parts of them: prepare(step, rows).

    skipped: what the rows write to while they are planned; every step gets a copy, so that no other thread reads it.
    """

    def make(step: int) -> StepRows:
        planned = list(islice(rows, each))
        after = rows.state()
        return StepRows(planned, rows.tally(planned), prepare(step, planned), after, dict(skipped or {}))

    return make
