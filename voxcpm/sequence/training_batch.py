"""Input and output of a training step: padded or packed rows in, the diffusion and the stop loss out.

The computation is in `VoxCPM2.forward` (`model.training_losses(...)`). A trainer needs only the classes of this file and that
call. Shapes: B rows, T positions, P latent frames per patch, D latent channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class BatchIndex:
    """Positions of the audio, the loss and the documents of a batch.

    `TrainingBatch.to` makes it on the CPU: on a GPU, finding each of them would wait for the GPU's queue.
    """

    audio: tuple[Tensor, Tensor]  #: (rows, columns), [A] int64 each, of the patches, in row-major order
    loss: tuple[Tensor, Tensor]  #: the same for the patches with a loss
    lengths: tuple[int, ...] | None = None  #: of documents in the sequence of all B*T positions; None: one per row
    offsets: Tensor | None = None  #: [documents + 1] int32: 0 and the running sums of the lengths

    @staticmethod
    def of(batch: TrainingBatch) -> BatchIndex:
        """Make the index of a batch, on the batch's device."""
        rows, columns = batch.audio_mask.nonzero(as_tuple=True)
        loss_rows, loss_columns = batch.loss_mask.nonzero(as_tuple=True)
        if batch.document_ids is None:
            return BatchIndex((rows, columns), (loss_rows, loss_columns))
        lengths = tuple(stop - start for _, start, stop in _runs(batch.document_ids.cpu()))
        offsets = torch.tensor((0, *accumulate(lengths)), dtype=torch.int32, device=rows.device)
        return BatchIndex((rows, columns), (loss_rows, loss_columns), lengths, offsets)

    def to(self, device: torch.device | str) -> BatchIndex:
        """The same index on another device."""
        audio, loss = ((rows.to(device), columns.to(device)) for rows, columns in (self.audio, self.loss))
        offsets = None if self.offsets is None else self.offsets.to(device)
        return BatchIndex(audio, loss, self.lengths, offsets)


@dataclass(frozen=True)
class TrainingBatch:
    """Rows of positions, right-padded. A row holds one document, or several in sequence (packed).

    A position is a text token, a patch, or padding (both masks zero). Masks may be bool or 0/1 numbers.
    """

    text_tokens: Tensor  #: [B, T] int64; 0 if the position is not text
    text_mask: Tensor  #: [B, T]
    audio_mask: Tensor  #: [B, T]; disjoint from text_mask
    features: Tensor  #: [B, T, P, D] latent patches; ignored if audio_mask is 0
    loss_mask: Tensor  #: [B, T]; the patches with a loss (references have none); a subset of audio_mask
    stop_labels: Tensor  #: [B, T] int64; 1 at the last patch with a loss of a document, otherwise 0
    position_ids: Tensor | None = None  #: [B, T] int64, from 0 in every document; None: 0..T-1
    #: [B, T] int64, constant over a document and different from its neighbors'; None: one document per row. Attention, hidden
    #: states and conditioning patches do not cross a border. Padding has an id that no document has.
    document_ids: Tensor | None = None
    #: [B, T, P, D]: the audio that the model is conditioned on (input of LocEnc, and LocDiT's previous patch), if it differs
    #: from `features`, which are always the target; None: the features.
    heard: Tensor | None = None
    #: Made by `to` before the batch leaves the CPU; None: the forward pass makes it. Set it to None if masks or ids change.
    index: BatchIndex | None = None

    def to(self, device: torch.device | str) -> TrainingBatch:
        """The same batch on another device (dtypes are kept), with its index."""
        on_cpu = self.loss_mask.device.type == "cpu"
        whole = replace(self, index=BatchIndex.of(self)) if self.index is None and on_cpu else self
        moved = {f.name: value.to(device) for f in fields(whole) if (value := getattr(whole, f.name)) is not None}
        return replace(self, **moved)


@dataclass(frozen=True)
class TrainingNoise:
    """Every random number of a training step, one set per position, so that a step can be repeated exactly.

    Only the entries at loss positions are read. A field that the config does not need may be None: the `cond_noise` pair if
    `noise_cond_prob_range` is (0, 0), `r_draw` and `rt_mask_uniform` if mean mode is off.
    """

    cfg_keep_uniform: Tensor  #: [B, T] U(0,1); the condition is kept if it is > training_cfg_rate
    t_draw: Tensor  #: [B, T]; N(0,1) if t_scheduler is "log-norm", U(0,1) if "uniform"
    z_normal: Tensor  #: [B, T, P, D] N(0,1); the noise end of the flow
    cond_noise_uniform: Tensor | None = None  #: [B, T] U(0,1)
    cond_noise_normal: Tensor | None = None  #: [B, T, P, D] N(0,1)
    r_draw: Tensor | None = None  #: [B, T], as t_draw
    rt_mask_uniform: Tensor | None = None  #: [B, T] U(0,1)

    @staticmethod
    def draw(
        shape: tuple[int, ...],
        patch_shape: tuple[int, int],
        generator: torch.Generator | None = None,
        log_norm: bool = True,
        device: torch.device | str = "cpu",
    ) -> TrainingNoise:
        """Draw numbers for positions of `shape` ([B, T] or [T]) and patches of `patch_shape` (P, D), float32.

        The numbers are drawn on the generator's device (the CPU without one), always all seven fields in the same order.
        They therefore do not depend on the device of the computation or on disabled options of the config.
        """
        source = generator.device if generator is not None else torch.device("cpu")
        places = {
            f.name: torch.empty(*shape, *(patch_shape if f.name in _PATCH_FIELDS else ()), device=source)
            for f in fields(TrainingNoise)
        }
        _draw_into(places, generator, log_norm)
        return TrainingNoise(**places).to(device)

    @staticmethod
    def for_documents(
        document_ids: Tensor, seeds: Mapping[tuple[int, int], int], patch_shape: tuple[int, int], log_norm: bool = True
    ) -> TrainingNoise:
        """Draw numbers that depend on the documents, not on their place in the batch.

        document_ids: [B, T]; seeds: (row, document id) -> seed, e.g. a hash of (run seed, step, sample id). Positions whose
        (row, id) has no seed are padding and get zeros. A document's numbers are those of `draw((length,), ...)` with a CPU
        generator of its seed, wherever it is packed.
        """
        rows, length = document_ids.shape
        ids = document_ids.cpu()
        target = {
            f.name: torch.zeros(rows, length, *(patch_shape if f.name in _PATCH_FIELDS else ()))
            for f in fields(TrainingNoise)
        }
        for row, start, stop in _runs(ids):
            seed = seeds.get((row, int(ids[row, start])))
            if seed is not None:
                source = torch.Generator().manual_seed(seed % (1 << 63))
                places = {name: tensor[row, start:stop] for name, tensor in target.items()}
                _draw_into(places, source, log_norm)
        return TrainingNoise(**{name: tensor.to(document_ids.device) for name, tensor in target.items()})

    def at(self, rows: Tensor, columns: Tensor, device: torch.device) -> TrainingNoise:
        """Select the numbers of N positions (rows, columns: [N]); every field becomes [N, ...]."""
        chosen: dict[str, Any] = {
            f.name: None if (value := getattr(self, f.name)) is None else value.to(device)[rows, columns]
            for f in fields(self)
        }
        return TrainingNoise(**chosen)

    def to(self, device: torch.device | str) -> TrainingNoise:
        """The same numbers on another device."""
        moved: dict[str, Any] = {
            f.name: None if (value := getattr(self, f.name)) is None else value.to(device) for f in fields(self)
        }
        return TrainingNoise(**moved)

    def padded(self, missing: int) -> TrainingNoise:
        """Return fields [N, ...] with `missing` zero rows appended."""
        longer: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            longer[f.name] = None if value is None else torch.cat((value, value.new_zeros(missing, *value.shape[1:])))
        return TrainingNoise(**longer)


_PATCH_FIELDS = ("z_normal", "cond_noise_normal")
"""Fields of TrainingNoise with a number for every value of a patch; the others have one per position."""


def _draw_into(places: Mapping[str, Tensor], generator: torch.Generator | None, log_norm: bool) -> None:
    """Fill the fields' tensors (contiguous), always all seven and in the same order."""
    times = ("r_draw", "t_draw")
    for name in ("cfg_keep_uniform", "cond_noise_uniform", "cond_noise_normal", *times, "rt_mask_uniform", "z_normal"):
        if name in _PATCH_FIELDS or (name in times and log_norm):
            places[name].normal_(generator=generator)
        else:
            places[name].uniform_(generator=generator)


def _runs(ids: Tensor) -> Iterator[tuple[int, int, int]]:
    """Yield (row, start, stop) of every run of one document id in ids [B, T], on the CPU."""
    for row, line in enumerate(ids):
        borders = (line.diff().nonzero().squeeze(1) + 1).tolist()
        yield from ((row, start, stop) for start, stop in pairwise((0, *borders, len(line))))


@dataclass(frozen=True)
class Losses:
    """The two losses of a batch, as means (to report) and as sums and counts (to normalize over a whole optimizer step).

    diffusion = diffusion_sum / max(diffusion_count, 1): the squared velocity error, averaged over D, then over loss positions
    and their P frames. stop = stop_sum / max(stop_count, 1): the mean cross-entropy over loss positions.

    With gradient accumulation or several ranks, backpropagate `diffusion_sum / total_count` instead of the mean of means.
    total_count is the sum of `diffusion_count` over the step. `diffusion_count` (P x loss positions of the batch) is known
    before the forward pass.
    """

    diffusion: Tensor  #: scalar float32, with gradient
    stop: Tensor  #: scalar float32, with gradient
    diffusion_sum: Tensor  #: scalar float32, with gradient
    stop_sum: Tensor  #: scalar float32, with gradient
    diffusion_count: int  #: loss positions x P
    stop_count: int  #: loss positions
    #: [N] float32, no gradient: diffusion loss of each loss position (mean over P and D), in row-major order of loss_mask
    diffusion_per_position: Tensor
    t_per_position: Tensor  #: [N] float32: the flow time (1 = noise, 0 = data) at which it was measured
    stop_logits: Tensor  #: [N, 2] float32, no gradient: class 1 means "this patch is the last one"
