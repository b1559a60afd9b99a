"""The engine: requests in, audio out, one step at a time. Threads and transport are left to the caller."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxcpm.engine.codec_streams import CodecStreams
from voxcpm.engine.costs import CostModel
from voxcpm.engine.lanes import CAPACITIES, lane_of, make_lanes
from voxcpm.engine.loop import GenerationLoop
from voxcpm.engine.prefixes import PrefixCache
from voxcpm.engine.request import Ending, GenerationRequest, Patch, Row, admit
from voxcpm.engine.scheduler import EngineBusyError, Entry, Kind, Scheduler, StepPlan
from voxcpm.errors import first_line
from voxcpm.kernels.threads import row_workers
from voxcpm.model.backbone import VoxCPM2

if TYPE_CHECKING:
    from voxcpm.audiovae import AudioVAE

log = logging.getLogger(__name__)

_LEARNED = 8
"""Steps with known costs before the codec of a step runs beside the next one."""
_LEARN_AGAIN = 100
"""One step in this many is made as with listeners."""

__all__ = ["Chunk", "EngineBusyError", "SpeechEngine", "plan_slots"]


@dataclass(frozen=True)
class Chunk:
    """What a step made for one request."""

    number: int
    index: int  #: of the patch
    samples: (
        NDArray[np.float32] | None
    )  #: [samples per patch] at the model's output rate; None if it failed or was cancelled
    latents: Tensor | None  #: [P, D], the patch
    ending: Ending | Literal["cancelled"] | None  #: set on the last chunk
    error: str | None = None  #: one line, if it failed


class SpeechEngine:
    """Speaks many requests at once; what a request yields is the same alone or in company. Not thread-safe.

    lanes: {capacity in positions: slots}. clock: seconds, monotonic.
    """

    def __init__(
        self,
        model: VoxCPM2,
        codec: AudioVAE,
        lanes: Mapping[int, int],
        queue: int | None = None,
        prefix_bytes: int = 512 * 2**20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        config = model.config
        self._model, self._clock = model, clock
        self._prefixes = PrefixCache(prefix_bytes)
        self._workers = row_workers(model.device)
        self._loop = GenerationLoop(model, make_lanes(model, lanes), self._prefixes)
        self._codec = CodecStreams(codec)
        self.patch_s = config.out_patch_samples / config.out_sample_rate
        self._scheduler = Scheduler(dict(lanes), self.patch_s, CostModel(), queue)
        self._rows: dict[int, Row] = {}
        self._contexts: dict[int, Tensor] = {}
        self._gone: list[int] = []
        self._undecoded: list[Patch] = []  # of the last step, if its codec runs beside the next one
        self._next = 0
        self.steps = 0

    # -- requests --------------------------------------------------------------------------------------------------------

    def submit(
        self,
        request: GenerationRequest,
        kind: Kind = "live",
        deadline_s: float = 10.0,
        context: Tensor | None = None,
    ) -> int:
        """Queue a request and return its number.

        kind: "live" is played while it is made, "whole" is needed at its end. deadline_s: of a live one's first audio.
        context: [C, P, D] patches that the codec decodes before the first one, the end of a prompt.

        Raises ValueError if it does not fit the context, EngineBusyError if the queue is full or its first audio would be late.
        """
        number = self._next
        row = admit(self._model.config, number, request)
        now = self._clock()
        self._scheduler.submit(
            Entry(number, kind, request.layout.length, row.positions, row.limit, now, deadline_s, last_run=now), now
        )
        self._next += 1
        self._rows[number] = row
        self._contexts[number] = torch.zeros(0, *request.layout.patches.shape[1:]) if context is None else context
        return number

    def cancel(self, number: int) -> None:
        """End a request; its slot is free before the next step, which reports it. Nothing if it has ended already."""
        if number in self._rows:
            self._leave(number)
            self._gone.append(number)

    def played(self, number: int, seconds: float) -> None:
        """Note how much of a request's audio, in all, its listener has taken. One that is 30 s behind pauses its row."""
        self._scheduler.taken(number, seconds)

    @property
    def idle(self) -> bool:
        """Return True if a step would do nothing."""
        return not (self._scheduler.running or self._scheduler.waiting or self._gone or self._undecoded)

    def load(self) -> dict[str, float]:
        """Return slots, free slots, running and waiting requests, steps so far, and hits and bytes of the cache of voices."""
        scheduler = self._scheduler
        return {
            "slots": scheduler.slots,
            "free": sum(scheduler.free.values()),
            "running": len(scheduler.running),
            "waiting": len(scheduler.waiting),
            "steps": self.steps,
            "voice_hits": self._prefixes.hits,
            "voice_bytes": self._prefixes.nbytes,
        }

    # -- the step --------------------------------------------------------------------------------------------------------

    def step(self) -> list[Chunk]:
        """Make the next patch of the chosen rows and return what is new. Returns [] if nothing can be done now.

        While nobody listens, the audio of a step is decoded beside the next step, and returned by it.
        """
        chunks = [Chunk(number, 0, None, None, "cancelled") for number in self._gone]
        self._gone.clear()
        plan = self._scheduler.plan(self._clock())
        beside = not plan.empty and self._decodes_beside()
        if not beside:
            chunks += self._take_undecoded()
        if not plan.empty:
            # Not from the plan on: the audio of the step before is not a part of this one's costs.
            started = self._clock()
            failed = self._join(plan)
            chosen = {number for number in plan.run if number not in failed}
            if beside:
                patches, made = self._step_beside_codec(chosen)
            else:
                patches = self._loop.step(chosen, self._workers)
                made = self._speak(patches, self._workers)
            now = self._clock()
            ended = [*failed, *(patch.request for patch in patches if patch.ending is not None)]
            self._scheduler.ran(plan, now - started, now, ended, learn=not failed and not beside)
            self.steps += 1
            chunks += [*failed.values(), *made]
        for chunk in chunks:
            if chunk.ending is not None:
                self._forget(chunk.number)
        return chunks

    def _decodes_beside(self) -> bool:
        """Return True if the codec of this step may run beside the next one: two threads are there, and nobody listens.

        One thread then makes the patches of all rows, the other one decodes those before: larger products, and no thread
        waits for the other within a step. A listener would hear a step later. Now and then a step is made as with listeners,
        so that the scheduler knows what those cost.
        """
        known = self._scheduler.costs.steps >= _LEARNED and self.steps % _LEARN_AGAIN
        return self._workers is not None and not self._scheduler.listened and bool(known)

    def _step_beside_codec(self, chosen: set[int]) -> tuple[list[Patch], list[Chunk]]:
        """Make the next patches of `chosen` and decode the last step's meanwhile; return both."""
        assert self._workers is not None
        making: Future[list[Patch]] = self._workers.submit(self._loop.step, chosen)
        decoding: Future[list[Chunk]] = self._workers.submit(self._speak, self._undecoded)
        # Both have ended before an error of one is raised: neither works on a state that others take for theirs.
        both: tuple[Future[Any], ...] = (making, decoding)
        wait(both)
        self._undecoded = making.result()
        return self._undecoded, decoding.result()

    def _take_undecoded(self) -> list[Chunk]:
        patches, self._undecoded = self._undecoded, []
        return self._speak(patches, self._workers)

    def _join(self, plan: StepPlan) -> dict[int, Chunk]:
        """Let newcomers join. One that cannot be processed fails alone: (number -> its last chunk)."""
        rows = [self._rows[number] for number in plan.join]
        if not rows:
            return {}
        for row in rows:
            # The slot that the scheduler has counted. Another one would be missing later, e.g. if a row before this one fails.
            row.lane = self._scheduler.running[row.number].lane
        reasons: dict[int, str] = {}
        try:
            self._loop.join(rows)
        except Exception:
            # One by one, to find which. Rows of other lanes may have joined.
            for row in rows:
                try:
                    if row not in self._loop.rows:
                        self._loop.join([row])
                except Exception as error:
                    reasons[row.number] = first_line(error)
        failed: dict[int, Chunk] = {}
        for row in rows:
            if row in self._loop.rows:
                self._codec.start(row.number, self._contexts[row.number])
                continue
            # Also without an exception: a row that found no slot would never speak, and keep the scheduler's slot.
            reason = reasons.get(row.number, "its lane has no slot")
            log.warning("request %d cannot be processed: %s", row.number, reason)
            failed[row.number] = Chunk(row.number, 0, None, None, "failed", "the request cannot be processed")
        return failed

    def _speak(self, patches: Sequence[Patch], workers: ThreadPoolExecutor | None = None) -> list[Chunk]:
        """Decode the patches of a step."""
        good = [patch for patch in patches if patch.ending != "failed"]
        chunks = [
            Chunk(patch.request, patch.index, None, None, "failed", "the latents are not finite")
            for patch in patches
            if patch.ending == "failed"
        ]
        if good:
            audio = self._codec.decode([p.request for p in good], torch.stack([p.latents for p in good]), workers)
            chunks += [
                Chunk(p.request, p.index, samples, p.latents, p.ending) for p, samples in zip(good, audio, strict=True)
            ]
        return chunks

    def _leave(self, number: int) -> None:
        row = self._rows[number]
        if row in self._loop.rows:
            self._loop.leave(row)
        self._undecoded = [patch for patch in self._undecoded if patch.request != number]
        self._scheduler.cancel(number)
        self._forget(number)

    def _forget(self, number: int) -> None:
        self._rows.pop(number, None)
        self._contexts.pop(number, None)
        self._codec.stop(number)


def plan_slots(model: VoxCPM2, most: int | None = None, memory_bytes: float | None = None) -> dict[int, int]:
    """Return lanes {capacity: slots} for a model.

    most: slots in all; None: 4 on a CPU, at most 64 on a GPU. memory_bytes: what the caches may take; None: half of the GPU's free
    memory, no limit on a CPU. One slot is in the longest lane, the others are shared by the short and the middle one: a request
    is admitted by its most patches, six for each token, so that a paragraph needs the middle one.
    """
    config = model.config
    on_gpu = model.device.type == "cuda"
    slots = most if most is not None else 64 if on_gpu else 4
    if memory_bytes is None and on_gpu:
        memory_bytes = torch.cuda.mem_get_info(model.device)[0] / 2
    widths = sum(2 * t.layers * t.kv_heads * t.head_dim for t in (config.tslm, config.ralm))
    position_bytes = widths * torch.finfo(model.dtype).bits // 8
    short, middle, longest = (lane_of(capacity, config.max_length) for capacity in CAPACITIES)
    while True:
        lanes: dict[int, int] = {}
        for capacity, count in ((longest, 1), (middle, (slots - 1) // 2), (short, slots)):
            lanes[capacity] = lanes.get(capacity, 0) + max(0, min(count, slots - sum(lanes.values())))
        lanes = {capacity: count for capacity, count in sorted(lanes.items()) if count}
        needed = sum(capacity * count for capacity, count in lanes.items()) * position_bytes
        if memory_bytes is None or needed <= memory_bytes or slots == 1:
            return lanes
        slots = max(1, slots * 3 // 4)
