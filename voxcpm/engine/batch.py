"""Generation of a list of requests: to their ends with refilled slots, or step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from voxcpm.engine.lanes import lanes_for
from voxcpm.engine.loop import GenerationLoop
from voxcpm.engine.request import Generation, GenerationRequest, Patch, admit
from voxcpm.model.backbone import VoxCPM2

Finished = Callable[[int, Generation], None]
"""(index, its generation): called once for each request, as soon as nothing of it changes."""

Retry = Callable[[int, Generation], GenerationRequest | None]
"""(index, its generation) -> the request to make instead, of the same layout and lengths; None: keep the generation."""


def generate_patches(
    model: VoxCPM2,
    requests: Sequence[GenerationRequest],
    max_batch: int = 32,
    retry: Retry | None = None,
    finished: Finished | None = None,
) -> list[Generation]:
    """Generate every request to its end, at most `max_batch` at once, and return the results in order.

    A slot that becomes free is filled at once, with the longest request that waits, so that the last steps are not those of a
    single long one. Raises ValueError if a layout does not fit the context, before anything is generated.
    """
    rows = [admit(model.config, number, request) for number, request in enumerate(requests)]
    loop = GenerationLoop(model, lanes_for(model, rows, max_batch))
    waiting = sorted(rows, key=lambda row: -row.request.layout.target_tokens)
    collected: list[list[Tensor]] = [[] for _ in rows]
    attempts = [1] * len(rows)
    results: list[Generation | None] = [None] * len(rows)
    while waiting or loop.rows:
        for row in loop.join(waiting, max_batch - len(loop.rows)):
            waiting.remove(row)
        for patch in loop.step():
            number, request = patch.request, rows[patch.request].request
            if patch.ending != "failed":
                collected[number].append(patch.latents)
            if patch.ending is None:
                continue
            kept = collected[number]
            empty = torch.zeros(0, *patch.latents.shape)
            made = Generation(torch.stack(kept) if kept else empty, patch.ending, request.seed, attempts[number])
            following = retry(number, made) if retry is not None else None
            if following is None:
                results[number] = made
                if finished is not None:
                    finished(number, made)
                continue
            rows[number] = admit(model.config, number, following)
            waiting.append(rows[number])
            collected[number] = []
            attempts[number] += 1
    return [result for result in results if result is not None]


def stream_patches(model: VoxCPM2, requests: Sequence[GenerationRequest]) -> Iterator[list[Patch]]:
    """Generate all requests together; yield the patches of every step, one for each request still running, in their order.

    Raises ValueError if a layout does not fit the context.
    """
    rows = [admit(model.config, number, request) for number, request in enumerate(requests)]
    if not rows:
        return
    loop = GenerationLoop(model, lanes_for(model, rows, len(rows)))
    loop.join(rows)
    while loop.rows:
        yield loop.step()
