"""From choices to training samples: tokens and lengths first, rows packed from these, audio and latents last."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.config import Phase, TrainError
from trainer.corpora import RATE, Corpora
from trainer.latents import Latents
from trainer.mixture import Choice, Mixture
from trainer.packing import Packer
from voxcpm.samples import Sample, lay_out_sample

if TYPE_CHECKING:
    from torch import Tensor

    from voxcpm.config import VoxCPM2Config
    from voxcpm.text import TextTokenizer

_PUNCTUATION_ROOM = 0.05
"""Seconds before a word's end at which a prompt may already be cut: word times are that coarse."""


@dataclass(frozen=True)
class Planned:
    """A choice with its tokens and length, before any audio is read: what is packed."""

    choice: Choice
    tokens: tuple[int, ...]
    patches: int
    reference_patches: int

    @property
    def length(self) -> int:
        """Positions: tokens, patches and the marks around them."""
        marks = 4 if self.reference_patches else 2
        return len(self.tokens) + self.patches + self.reference_patches + marks


class Planner:
    """Tokens and lengths of choices."""

    def __init__(self, tokenizer: TextTokenizer, config: VoxCPM2Config) -> None:
        self._tokenizer = tokenizer
        self._patch = config.patch_samples

    def plan(self, choice: Choice) -> Planned:
        """The plan of one choice; the length follows from the clip's duration alone."""
        candidate = choice.candidate
        text = candidate.text
        if choice.layout in ("design", "controllable"):
            text = f"({choice.description or candidate.description}){text}"
        reference = next((s for i, s in candidate.references if i == choice.reference), 0.0)
        return Planned(
            choice,
            tuple(self._tokenizer.encode(text)),
            self.patches(candidate.seconds),
            self.patches(reference) if choice.reference else 0,
        )

    def patches(self, seconds: float) -> int:
        """Patches a clip of this duration fills, the last one padded."""
        return max(1, ceil(round(seconds * RATE) / self._patch))


class RowStream:
    """Endless rows of planned samples; `state` and `seek` let a run go on exactly where it was, at no cost.

    A sample longer than a row is not truncated but counted in `skipped`: segment id -> positions it needs.
    """

    def __init__(self, mixture: Mixture, planner: Planner, phase: Phase, skipped: dict[str, int]) -> None:
        self._mixture, self._planner = mixture, planner
        self._packer: Packer[Planned] = Packer(phase.max_positions)
        self._skipped = skipped
        self._next = 0

    def state(self) -> dict[str, Any]:
        """The next choice's number and those of the choices in open rows: all that later rows depend on."""
        rows = [[item.choice.index for item in row] for row in self._packer.rows]
        return {"next": self._next, "open": rows, "waited": self._packer.waited}

    def seek(self, state: dict[str, Any]) -> None:
        """Go to a place that `state` told."""
        self._next = state["next"]
        rows = [[self._plan(index) for index in row] for row in state["open"]]
        self._packer.reopen(rows, state["waited"])

    def __iter__(self) -> RowStream:
        return self

    def __next__(self) -> list[Planned]:
        """The next full row. Raises TrainError when a whole epoch's samples are too long for a row."""
        in_a_row = 0
        while True:
            planned = self._plan(self._next)
            self._next += 1
            if planned.length > self._packer.positions:
                self._skipped[planned.choice.candidate.segment_id] = planned.length
                in_a_row += 1
                if in_a_row >= min(10_000, 10 * self._mixture.epoch_samples):
                    raise TrainError(
                        f"no sample fits a row of {self._packer.positions} positions (the last needs {planned.length}):"
                        " raise max_positions of the phase"
                    )
                continue
            in_a_row = 0
            row = self._packer.add(planned)
            if row is not None:
                return row

    def _plan(self, index: int) -> Planned:
        return self._planner.plan(self._mixture.choice(index))


class SampleMaker:
    """Makes samples of plans: latents of the clips, laid out; in continuation layouts the beginning is not learnt."""

    def __init__(self, corpora: Corpora, latents: Latents, config: VoxCPM2Config) -> None:
        self._corpora, self._latents, self._config = corpora, latents, config

    def make(self, planned: Planned) -> Sample:
        """The training sample of a plan, as the reference's packer would make it where it has the layout."""
        choice = planned.choice
        target = self._latents.get(choice.candidate.segment_id, planned.patches)
        reference = self._latents.get(choice.reference, planned.reference_patches) if choice.reference else None
        sample = lay_out_sample(planned.tokens, target, reference)
        if choice.layout in ("continuation", "reference_continuation"):
            return self._hide_beginning(sample, choice, planned.patches)
        return sample

    def reference(self, planned: Planned) -> Tensor:
        """float32 [R, P, D]: the latents of a plan's reference clip."""
        assert planned.choice.reference is not None
        return self._latents.get(planned.choice.reference, planned.reference_patches)

    def _hide_beginning(self, sample: Sample, choice: Choice, patches: int) -> Sample:
        """No loss on the patches up to a word boundary between a fifth and four fifths of the clip.

        The paper's continuation layout excludes the given prefix from the loss; the cut is where one word has ended, so
        that the prefix is what a prompt of somebody's own would be. Without word times it is the middle.
        """
        seconds = self._config.patch_samples / RATE
        words = self._corpora.segment(choice.candidate.segment_id)["words"] or []
        low, high = 0.2 * choice.candidate.seconds, 0.8 * choice.candidate.seconds
        ends = [word["end"] - _PUNCTUATION_ROOM for word in words[:-1] if low <= (word["end"] or 0.0) <= high]
        dice = np.random.default_rng(choice.seed)
        end = ends[int(dice.integers(len(ends)))] if ends else choice.candidate.seconds / 2
        hidden = min(max(1, round(end / seconds)), patches - 1)
        loss = sample.loss_mask.clone()
        first = int(loss.nonzero()[0])
        loss[first : first + hidden] = False
        return replace(sample, loss_mask=loss)
