"""From a choice to a training sample: audio out of the shards, latents through the codec, layout and loss mask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import torch

from catalogs.corpus import Corpus
from trainer.config import Phase, TrainError
from trainer.mixture import RATE, Candidate, Choice, Mixture
from trainer.packing import Packer
from voxcpm.samples import Sample, lay_out_sample

if TYPE_CHECKING:
    from voxcpm.audiovae import AudioVAE
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
            text = f"({candidate.description}){text}"
        reference = next((s for i, s in candidate.references if i == choice.reference), 0.0)
        return Planned(
            choice,
            tuple(self._tokenizer.encode(text)),
            self.patches(candidate.seconds),
            self.patches(reference) if choice.reference else 0,
        )

    def patches(self, seconds: float) -> int:
        """Patches a clip of this duration fills, the last one padded."""
        return ceil(round(seconds * RATE) / self._patch)


def packed_rows(mixture: Mixture, planner: Planner, phase: Phase, skipped: dict[str, int]) -> Iterator[list[Planned]]:
    """Endless rows of planned samples. A sample longer than a row is not truncated but counted in `skipped` by segment.

    Raises TrainError when everything is too long.
    """
    packer: Packer[Planned] = Packer(phase.max_positions)
    in_a_row = 0
    for choice in mixture:
        planned = planner.plan(choice)
        if planned.length > phase.max_positions:
            skipped[choice.candidate.segment_id] = planned.length
            in_a_row += 1
            if in_a_row > 10_000:
                raise TrainError(f"no sample fits a row of {phase.max_positions} positions: raise max_positions")
            continue
        in_a_row = 0
        row = packer.add(planned)
        if row is not None:
            yield row


class SampleMaker:
    """Makes samples of plans: reads the clip, resamples to 16 kHz, encodes it (kept in memory), lays it out."""

    def __init__(self, corpus: Corpus, codec: AudioVAE, config: VoxCPM2Config, cached_s: float = 3600.0) -> None:
        self._corpus = corpus
        self._codec = codec
        self._config = config
        self._cache: dict[str, torch.Tensor] = {}
        self._room = round(cached_s * RATE / config.patch_samples)

    def make(self, planned: Planned) -> Sample:
        """The training sample of a plan, as the reference's packer would make it where it has the layout."""
        choice = planned.choice
        target = self._latents(choice.candidate.segment_id, planned.patches)
        reference = self._latents(choice.reference, planned.reference_patches) if choice.reference else None
        sample = lay_out_sample(planned.tokens, target, reference)
        if choice.layout in ("continuation", "reference_continuation"):
            return self._hide_beginning(sample, choice, planned.patches)
        return sample

    def _hide_beginning(self, sample: Sample, choice: Choice, patches: int) -> Sample:
        """No loss on the patches up to a word boundary between a fifth and four fifths of the clip.

        The paper's continuation layout excludes the given prefix from the loss; the cut is where one word has ended, so
        that the prefix is what a prompt of somebody's own would be.
        """
        seconds = self._config.patch_samples / RATE
        words = self._corpus.segment(choice.candidate.segment_id)["words"] or []
        low, high = 0.2 * choice.candidate.seconds, 0.8 * choice.candidate.seconds
        ends = [word["end"] - _PUNCTUATION_ROOM for word in words[:-1] if low <= word["end"] <= high]
        dice = np.random.default_rng(choice.seed)
        end = ends[int(dice.integers(len(ends)))] if ends else choice.candidate.seconds / 2
        hidden = min(max(1, round(end / seconds)), patches - 1)
        loss = sample.loss_mask.clone()
        first = int(loss.nonzero()[0])
        loss[first : first + hidden] = False
        return replace(sample, loss_mask=loss)

    def _latents(self, segment_id: str, patches: int) -> torch.Tensor:
        """float32 [A, P, D] of one clip."""
        if segment_id not in self._cache:
            if sum(map(len, self._cache.values())) > self._room:
                self._cache.pop(next(iter(self._cache)))
            self._cache[segment_id] = encode_clip(
                self._codec, clip_16k(self._corpus, segment_id), patches, self._config
            )
        return self._cache[segment_id]


def clip_16k(corpus: Corpus, segment_id: str) -> np.ndarray:
    """float32 [S] at 16 kHz of one segment; TrainError where its shard is not there."""
    import soxr

    try:
        samples, rate = corpus.read_audio(segment_id)
    except OSError as error:
        raise TrainError(
            f"the shard of segment {segment_id} cannot be read ({error}); run: voxmill fsck {corpus.path}"
        ) from None
    return samples if rate == RATE else np.asarray(soxr.resample(samples, rate, RATE), dtype=np.float32)


@torch.inference_mode()
def encode_clip(codec: AudioVAE, samples: np.ndarray, patches: int, config: VoxCPM2Config) -> torch.Tensor:
    """float32 [A, P, D]: latents of a clip, zero padded on the right to `patches` whole patches."""
    wanted = patches * config.patch_samples
    padded = np.pad(samples[:wanted], (0, max(0, wanted - len(samples))))
    device = next(codec.parameters()).device
    mu = codec.encode(torch.from_numpy(padded)[None, None].to(device))
    return mu[0].T.reshape(patches, config.patch_size, config.feat_dim).float().cpu().clone()


def describe_candidates(candidates: list[Candidate]) -> str:
    """One line: how many segments, hours and languages there are to train on, and what they can serve."""
    hours = sum(candidate.seconds for candidate in candidates) / 3600
    languages = sorted({candidate.language for candidate in candidates})
    described = sum(candidate.description is not None for candidate in candidates)
    referenced = sum(bool(candidate.references) for candidate in candidates)
    return (
        f"{len(candidates)} segments, {hours:.3f} h, languages {' '.join(languages)}; {described} with a description,"
        f" {referenced} with references"
    )
