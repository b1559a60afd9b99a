"""Generation of a list of requests: to their ends with refilled slots, or step by step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

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
    workers: int = 1,
) -> list[Generation]:
    """Generate every request to its end, at most `max_batch` at once, and return the results in order.

    A slot that becomes free is filled at once, with the longest request that waits, so that the last steps are not those of a
    single long one. workers: threads that share the requests, each with its part of the slots; `retry` and `finished` are called
    in them. Raises ValueError if a layout does not fit the context, before anything is generated.
    """
    queue = _Queue(model, requests, retry, finished)
    workers = max(1, min(workers, max_batch, len(requests)))
    shares = [max_batch // workers + (number < max_batch % workers) for number in range(workers)]
    with ThreadPoolExecutor(workers, "speech") as pool:
        # The calling thread is one of them: what interrupts it ends the others.
        others = [pool.submit(queue.work, share) for share in shares[1:]]
        queue.work(shares[0])
        for other in others:
            other.result()
    return [result for result in queue.results if result is not None]


class _Queue:
    """Requests that wait, and the results of those that have ended. Workers take from it until it is empty."""

    def __init__(
        self, model: VoxCPM2, requests: Sequence[GenerationRequest], retry: Retry | None, finished: Finished | None
    ) -> None:
        self._model, self._retry, self._finished = model, retry, finished
        self._rows = [admit(model.config, number, request) for number, request in enumerate(requests)]
        self._waiting = sorted(self._rows, key=lambda row: -row.request.layout.target_tokens)
        self._collected: list[list[Tensor]] = [[] for _ in self._rows]
        self._attempts = [1] * len(self._rows)
        self.results: list[Generation | None] = [None] * len(self._rows)
        self._lock = threading.Lock()  # of `_waiting`: the rest belongs to the worker that has the row
        self._failed = False

    def work(self, slots: int) -> None:
        """Generate what waits, `slots` at once, until nothing is left. An error, of any worker, ends it."""
        try:
            loop = GenerationLoop(self._model, lanes_for(self._model, self._rows, slots))
            while not self._failed:
                with self._lock:
                    taken = loop.reserve(self._waiting, slots - len(loop.rows))
                    for row in taken:
                        self._waiting.remove(row)
                loop.fill(taken)
                if not loop.rows:
                    return
                for patch in loop.step():
                    self._take(patch)
        except BaseException:
            self._failed = True
            raise

    def _take(self, patch: Patch) -> None:
        """Keep a patch. If it is its row's last one, that is the result, or the row waits for another attempt."""
        number, request = patch.request, self._rows[patch.request].request
        if patch.ending != "failed":
            self._collected[number].append(patch.latents)
        if patch.ending is None:
            return
        kept = self._collected[number]
        empty = torch.zeros(0, *patch.latents.shape)
        made = Generation(torch.stack(kept) if kept else empty, patch.ending, request.seed, self._attempts[number])
        following = self._retry(number, made) if self._retry is not None else None
        if following is None:
            self.results[number] = made
            if self._finished is not None:
                self._finished(number, made)
            return
        row = admit(self._model.config, number, following)
        self._rows[number], self._collected[number] = row, []
        self._attempts[number] += 1
        with self._lock:
            self._waiting.append(row)


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
