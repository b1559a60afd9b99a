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
    """The batch with `heard` set: patches to be learned are heard as a model hears what it has said so far, not exactly.

    Patches of the past are exact in training, while those a model speaks are its own: a small model follows the recording it
    has heard rather than the text and the reference, and is lost after its first mistake. Two remedies, for batches of packed
    rows. noise: each patch gets Gaussian noise of a standard deviation drawn evenly from [0, noise] (of the latents' scale).
    drop: that share of the documents hears nothing of its past (zeros), so that every patch, and not just the first, has to
    be told from text and reference. What is given (references, beginnings) stays exact, as it is when the model speaks, and
    so does what is to be predicted.

    seeds: (row, document id) -> seed; a document's numbers follow from its own, wherever it is packed.
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
