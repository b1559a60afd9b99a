"""Perturb or drop the audio history that conditions the model in training, so that it relies on text and reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from trainer.data.mixture import hash_number
from voxcpm.sequence.training_batch import TrainingBatch


def noise_history(
    batch: TrainingBatch, seeds: Mapping[tuple[int, int], int], noise: float = 0.0, drop: float = 0.0
) -> TrainingBatch:
    """Return the batch with `heard` set: the model is conditioned on perturbed target patches, as in inference, not on exact ones.

    In training the past patches are exact; in inference they are the model's own output. A small model then follows the recorded
    history instead of the text and the reference, and cannot recover from its first mistake. There are two remedies, for batches
    of packed rows. noise: each patch gets Gaussian noise with a standard deviation drawn uniformly from [0, noise] (in units of
    the latents' scale). drop: this share of the documents is conditioned on no history (zeros). The model then predicts every
    patch, not only the first, from the text and the reference. References and given beginnings stay exact, as in inference, and
    so do the targets of the prediction.

    seeds: (row, document id) -> seed; a document's random numbers depend only on its seed, wherever it is packed.
    """
    if not (noise or drop):
        return batch
    assert batch.document_ids is not None
    heard = batch.features.clone()
    learnt = batch.loss_mask.bool()
    for (row, document), seed in seeds.items():
        places = ((batch.document_ids[row] == document) & learnt[row]).nonzero().squeeze(1)
        generator = torch.Generator().manual_seed(hash_number(seed, "history"))
        if float(torch.rand((), generator=generator)) < drop:
            heard[row, places] = 0.0
        elif noise:
            strength = noise * torch.rand(len(places), 1, 1, generator=generator)
            heard[row, places] += strength * torch.randn(len(places), *heard.shape[2:], generator=generator)
    return replace(batch, heard=heard)
