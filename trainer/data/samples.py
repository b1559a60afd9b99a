"""The rows of one step as tensors: latents are laid out, packed and given their random numbers; damaged clips are replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from trainer.config import Phase, TrainConfig
from trainer.data.candidates import Choice
from trainer.data.corpora import Corpora, SegmentError
from trainer.data.history_noise import noise_history
from trainer.data.latent_cache import Latents
from trainer.data.rows import Planned, Row
from trainer.data.sample_counts import SampleCounts
from trainer.runtime.seeds import hash_number
from trainer.sample_kinds import BY_LAYOUT
from voxcpm.config import VoxCPM2Config
from voxcpm.sequence.training_batch import TrainingBatch, TrainingNoise
from voxcpm.sequence.training_rows import Sample, lay_out_sample, pack_rows

_PUNCTUATION_ROOM = 0.05
"""Seconds before a word's end at which a prompt is cut: word times are not more exact than this."""
_WORD_TIMES_KEPT = 10_000
"""Number of segments whose word times stay in memory, since reading them decodes an index row."""


class SampleMaker:
    """Makes samples from plans: latents of the clips, laid out. In continuation layouts the beginning has no loss."""

    def __init__(self, corpora: Corpora, latents: Latents, config: VoxCPM2Config) -> None:
        self._corpora, self._latents = corpora, latents
        self._patch_s = config.patch_seconds
        self._word_ends = lru_cache(_WORD_TIMES_KEPT)(self._read_word_ends)

    def make(self, planned: Planned) -> Sample:
        """Make the training sample of a plan, as the reference implementation's packer does if it has the layout. Raises
        SegmentError if a clip is damaged."""
        choice = planned.choice
        target = self._latents.get(choice.candidate.segment_id, planned.patches)
        reference = self._latents.get(choice.reference, planned.reference_patches) if choice.reference else None
        sample = lay_out_sample(planned.tokens, target, reference)
        if BY_LAYOUT[choice.layout].continuation:
            return self._hide_beginning(sample, choice, planned.patches)
        return sample

    def reference(self, planned: Planned) -> Tensor:
        """Return float32 [R, P, D]: the latents of a plan's reference clip."""
        assert planned.choice.reference is not None
        return self._latents.get(planned.choice.reference, planned.reference_patches)

    def _hide_beginning(self, sample: Sample, choice: Choice, patches: int) -> Sample:
        """Remove the loss from the patches up to a word boundary between a fifth and four fifths of the clip.

        The paper's continuation layout excludes the given prefix from the loss. The cut is at the end of a word, so that the
        prefix resembles a prompt that a user records. Without word times the cut is in the middle.
        """
        low, high = 0.2 * choice.candidate.seconds, 0.8 * choice.candidate.seconds
        ends = [end - _PUNCTUATION_ROOM for end in self._word_ends(choice.candidate.segment_id) if low <= end <= high]
        end = ends[hash_number("continued", choice.seed) % len(ends)] if ends else choice.candidate.seconds / 2
        hidden = min(max(1, round(end / self._patch_s)), patches - 1)
        loss = sample.loss_mask.clone()
        first = int(loss.nonzero()[0])
        loss[first : first + hidden] = False
        return replace(sample, loss_mask=loss)

    def _read_word_ends(self, segment_id: str) -> tuple[float, ...]:
        """Read the seconds at which the words of a segment end, without the last word; 0 for a word without a time."""
        words = self._corpora.segment(segment_id)["words"] or []
        return tuple(word["end"] or 0.0 for word in words[:-1])


def make_all(
    maker: SampleMaker, rows: Iterable[Iterable[Planned]], config: VoxCPM2Config
) -> tuple[list[list[Sample]], dict[str, str]]:
    """Make the samples of planned rows; also return the segments that cannot be read: segment id -> reason.

    A sample that cannot be read is replaced by a document of one position without audio and without loss. So the other samples
    keep their numbers in the row, and with them their random numbers.
    """
    unreadable: dict[str, str] = {}

    def made(planned: Planned) -> Sample:
        try:
            return maker.make(planned)
        except SegmentError as error:
            unreadable[error.segment_id] = str(error)
            return _nothing(config)

    return [[made(planned) for planned in row] for row in rows], unreadable


def _nothing(config: VoxCPM2Config) -> Sample:
    no = torch.zeros(1, dtype=torch.bool)
    zero = torch.zeros(1, dtype=torch.int64)
    return Sample(zero, no, no, zero, torch.zeros(0, config.patch_size, config.feat_dim))


@dataclass(frozen=True)
class MicroBatch:
    """The input of one forward pass with its random numbers, on the device."""

    batch: TrainingBatch
    noise: TrainingNoise
    choices: tuple[Choice, ...]
    """The choices of all documents, row by row."""
    learnt: np.ndarray
    """int64 [2, N]: row and document of each position with a loss."""
    documents: tuple[int, ...]
    """Number of documents in each row."""
    positions: int
    slots: int
    patches: int
    audio: int
    unreadable: dict[str, str]
    """Damaged segments with the reasons; the documents that replace their samples have no loss."""

    def groups(self, errors: np.ndarray) -> Iterator[tuple[str, float, int]]:
        """Yield (name, sum, count) of the errors [N] at positions with a loss, once by layout and once by language per document."""
        first = np.concatenate(([0], np.cumsum(self.documents)))[self.learnt[0]]
        of_document = first + self.learnt[1]
        totals = np.bincount(of_document, errors, len(self.choices))
        counts = np.bincount(of_document, minlength=len(self.choices))
        for choice, total, count in zip(self.choices, totals.tolist(), counts.tolist(), strict=True):
            if not count:
                continue
            for name in (f"layout_{choice.layout}", f"language_{choice.candidate.language or 'unknown'}"):
                yield name, total, count


class BatchMaker:
    """Makes micro-batches from planned rows. It uses neither the weights nor the global RNG, so it may run in a separate thread
    while a step is computed."""

    def __init__(self, config: TrainConfig, maker: SampleMaker, shape: VoxCPM2Config, device: torch.device) -> None:
        """shape: the model's config. device: the device of the batches."""
        self._config, self._maker, self._shape, self._device = config, maker, shape, device

    def micro_batches(self, phase: Phase, step: int, planned: Sequence[Sequence[Planned]]) -> list[MicroBatch]:
        """Make this rank's rows of a step with their audio and random numbers, on the device, `phase.rows` at a time."""
        parts = [planned[at : at + phase.rows] for at in range(0, len(planned), phase.rows)]
        return [self._micro_batch([list(row) for row in rows], step) for rows in parts]

    def _micro_batch(self, rows: list[list[Planned]], step: int) -> MicroBatch:
        # One seed per (row, document): it depends on (seed, step, sample), wherever the sample was packed.
        seeds = {
            (row, document): hash_number(self._config.seed, step, item.choice.seed)
            for row, items in enumerate(rows)
            for document, item in enumerate(items)
        }
        samples, unreadable = make_all(self._maker, rows, self._shape)
        batch = pack_rows(samples)
        assert batch.document_ids is not None
        learnt, heard = batch.loss_mask, batch
        if self._config.conditioning.history_noise or self._config.conditioning.history_drop:
            heard = noise_history(
                batch, seeds, self._config.conditioning.history_noise, self._config.conditioning.history_drop
            )
        return MicroBatch(
            heard.to(self._device),
            document_noise(self._shape, batch, seeds).to(self._device),
            tuple(item.choice for row in rows for item in row),
            torch.stack((learnt.nonzero()[:, 0], batch.document_ids[learnt])).numpy(),
            tuple(len(row) for row in rows),
            positions=sum(sample.length for row in samples for sample in row),
            slots=batch.text_tokens.numel(),
            patches=int(learnt.sum()),
            audio=int(batch.audio_mask.sum()),
            unreadable=unreadable,
        )


def document_noise(config: VoxCPM2Config, batch: TrainingBatch, seeds: dict[tuple[int, int], int]) -> TrainingNoise:
    """Return the random numbers of a packed batch. seeds: by (row, document)."""
    assert batch.document_ids is not None
    shape = (config.patch_size, config.feat_dim)
    log_norm = config.dit_config.cfm_config.t_scheduler == "log-norm"
    return TrainingNoise.for_documents(batch.document_ids, seeds, shape, log_norm)


@dataclass(frozen=True)
class StepRows:
    """The data of one step."""

    planned: Sequence[Row]
    """The step's rows on all ranks."""
    realised: SampleCounts
    """The counts of these rows."""
    parts: list[MicroBatch]
    """This rank's rows with their audio, on the device."""
    after: dict[str, Any]
    """The position in the data after them."""
    skipped: dict[str, int]
    """Segments that did not fit into a row so far in this phase, with the positions they need."""


class Rows(Protocol):
    """An endless stream of rows with a position that can be saved."""

    def __iter__(self) -> Iterator[Any]: ...

    def state(self) -> dict[str, Any]: ...

    def tally(self, rows: Any) -> SampleCounts: ...


def step_maker(
    rows: Rows,
    each: int,
    prepare: Callable[[int, Sequence[Sequence[Planned]]], list[MicroBatch]],
    skipped: dict[str, int] | None = None,
) -> Callable[[int], StepRows]:
    """Return a function that plans the next `each` rows and makes this rank's parts of them with prepare(step, rows).

    skipped: the dict that the rows write to while they are planned. Every step gets a copy, so that no other thread reads it.
    """

    def make(step: int) -> StepRows:
        planned = list(islice(rows, each))
        after = rows.state()
        return StepRows(planned, rows.tally(planned), prepare(step, planned), after, dict(skipped or {}))

    return make
