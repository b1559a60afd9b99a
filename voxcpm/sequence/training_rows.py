"""Training samples: their layouts, and the rows of a batch made from them.

plain           text 101 [target] 102
with reference  103 [reference] 104 text 101 [target] 102
prompt only     text 103 [clip] 104      (no loss)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxcpm.sequence.prompt_layout import AUDIO_END, AUDIO_START, REFERENCE_END, REFERENCE_START
from voxcpm.sequence.training_batch import TrainingBatch


@dataclass(frozen=True)
class Sample:
    """One document: T positions, N of them patches."""

    text_tokens: Tensor  #: [T] int64
    audio_mask: Tensor  #: [T] bool
    loss_mask: Tensor  #: [T] bool
    stop_labels: Tensor  #: [T] int64
    patches: Tensor  #: [N, P, D] float32: those of audio_mask, in order

    @property
    def length(self) -> int:
        """The number of positions T."""
        return len(self.text_tokens)


def lay_out_sample(
    text_ids: Sequence[int], target: Tensor, reference: Tensor | None = None, prompt_only: bool = False
) -> Sample:
    """Build the layout of a sample. target: [A, P, D], reference: [R, P, D] latents of another clip of the same voice.

    Raises ValueError if the target has no patches or a prompt-only sample has a reference.
    """
    if len(target) == 0:
        raise ValueError("a training sample needs at least one patch")
    if prompt_only and reference is not None:
        raise ValueError("a prompt-only sample has no reference")
    ids: list[int] = []
    audio: list[bool] = []
    learnt: list[bool] = []

    def add(tokens: Sequence[int], patches: int = 0, loss: bool = False) -> None:
        ids.extend([*tokens, *[0] * patches])
        audio.extend([False] * len(tokens) + [True] * patches)
        learnt.extend([False] * len(tokens) + [loss] * patches)

    if reference is not None:
        add([REFERENCE_START], len(reference))
        add([REFERENCE_END])
    add([*text_ids, REFERENCE_START if prompt_only else AUDIO_START], len(target), not prompt_only)
    last = len(ids) - 1
    add([REFERENCE_END if prompt_only else AUDIO_END])
    labels = torch.zeros(len(ids), dtype=torch.int64)
    # The official code labels a prompt's last patch too; without a loss the label is not read.
    labels[last] = 1
    return Sample(
        torch.tensor(ids, dtype=torch.int64),
        torch.tensor(audio),
        torch.tensor(learnt),
        labels,
        target if reference is None else torch.cat((reference, target)),
    )


def pack_rows(rows: Sequence[Sequence[Sample]], length: int | None = None) -> TrainingBatch:
    """Make a batch whose rows are the given samples in sequence, right-padded to `length` (or to the longest row).

    document_ids count from 0 in each row, padding is -1. position_ids start from 0 in every document.

    Raises ValueError if a row is longer than `length`.
    """
    longest = max(sum(sample.length for sample in row) for row in rows)
    length = longest if length is None else length
    if longest > length:
        raise ValueError(f"a row of {longest} positions does not fit {length}")
    count = len(rows)
    tokens, labels, positions = (torch.zeros(count, length, dtype=torch.int64) for _ in range(3))
    text, audio, loss = (torch.zeros(count, length, dtype=torch.bool) for _ in range(3))
    documents = torch.full((count, length), -1, dtype=torch.int64)
    for i, row in enumerate(rows):
        filled = slice(0, sum(sample.length for sample in row))
        tokens[i, filled] = torch.cat([sample.text_tokens for sample in row])
        labels[i, filled] = torch.cat([sample.stop_labels for sample in row])
        audio[i, filled] = torch.cat([sample.audio_mask for sample in row])
        loss[i, filled] = torch.cat([sample.loss_mask for sample in row])
        text[i, filled] = ~audio[i, filled]
        lengths = torch.tensor([sample.length for sample in row])
        documents[i, filled] = torch.arange(len(row)).repeat_interleave(lengths)
        starts = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        positions[i, filled] = torch.arange(len(starts)) - starts
    features = torch.zeros(count, length, *rows[0][0].patches.shape[1:])
    # Row by row, and within a row sample by sample: the order of the mask's positions.
    features[audio] = torch.cat([sample.patches for row in rows for sample in row]).float()
    return TrainingBatch(tokens, text, audio, features, loss, labels, positions, documents)
