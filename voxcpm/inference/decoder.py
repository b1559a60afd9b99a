"""Generation of patches from layouts, for any number of requests at once, patch by patch.

The output of a request does not depend on the other requests in the batch. Its noise is keyed by (seed, patch index), and
guidance, lengths and stop decision are per request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from voxcpm.model.backbone import VoxCPM2
from voxcpm.model.decode_state import DecodeState
from voxcpm.model.flow import Solver
from voxcpm.sequence.prompt_layout import Layout

log = logging.getLogger(__name__)

#: Why a generation ended: the model's stop decision, the limit on its length, or a full context.
Ending = Literal["stop", "max_len", "context"]


@dataclass(frozen=True)
class GenerationRequest:
    """One utterance to generate."""

    layout: Layout
    seed: int = 0
    cfg: float = 2.0
    min_len: int = 2  #: stop decisions count from patch index min_len + 1: 2 gives at least 4 patches
    max_len: int = 2000
    #: At most int(target tokens * this + 10) patches, as in the official code, with or without retries; None: only max_len
    ratio_threshold: float | None = 6.0
    noise: Callable[[int], Tensor] | None = None  #: patch index -> [P, D] N(0,1), replaces the seed's noise

    @property
    def most_patches(self) -> int:
        """Maximum number of patches, from the text's length and max_len."""
        if self.ratio_threshold is None:
            return self.max_len
        return min(int(self.layout.target_tokens * self.ratio_threshold + 10), self.max_len)


@dataclass(frozen=True)
class Patch:
    """One step of one request."""

    request: int  #: index in the list of requests
    index: int
    latents: Tensor  #: [P, D] float32
    ending: Ending | None  #: set on the last patch
    stop_logits: Tensor  #: [2]
    lm_hidden: Tensor  #: [H], the TSLM state that conditioned the patch
    residual_hidden: Tensor  #: [H], the RALM state that conditioned it


@dataclass
class Generation:
    """A finished request."""

    patches: Tensor  #: [n, P, D] float32 on the CPU
    ending: Ending
    seed: int
    attempts: int = 1  #: generations until this one, with retries of bad cases


def patch_noise(seed: int, index: int, patch_size: int, feat_dim: int) -> Tensor:
    """Return noise [P, D] N(0,1) that depends on (seed, index) only: the same alone, in a batch, after a restart, on any device."""
    mixed = (seed * 0x9E3779B97F4A7C15 + index * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & (2**64 - 1)
    mixed = ((mixed ^ (mixed >> 31)) * 0xD6E8FEB86659FD93) & (2**63 - 1)
    return torch.randn(patch_size, feat_dim, generator=torch.Generator().manual_seed(mixed))


@dataclass
class _Running:
    request: int
    options: GenerationRequest
    limit: int
    context_limited: bool
    index: int = 0


@dataclass
class Decoder:
    """Generation of requests to their end in one batch; iterate over `run`."""

    model: VoxCPM2
    requests: Sequence[GenerationRequest]
    solver: Solver = field(default_factory=Solver)

    def run(self) -> Iterator[list[Patch]]:
        """Yield the patches of every step: one for each request still running, in the order of the requests.

        Raises ValueError if a layout does not fit the context.
        """
        config = self.model.config
        running = [self._admit(i, request) for i, request in enumerate(self.requests)]
        if not running:
            return
        capacity = max(r.options.layout.length + r.limit - 1 for r in running)
        with torch.inference_mode():
            state = DecodeState.allocate(config, len(running), capacity, self.model.dtype, self.model.device)
            self.model.prefill([r.options.layout for r in running], state)
        while running:
            with torch.inference_mode():
                step = self._step(running, state)
            yield sorted(step, key=lambda patch: patch.request)
            with torch.inference_mode():
                # From the last slot to the first, so that the slots still to be released do not move.
                for slot in reversed(range(len(step))):
                    if step[slot].ending is not None:
                        state.release(slot)
                        running[slot] = running[-1]
                        running.pop()
                if running:
                    latents = {patch.request: patch.latents for patch in step}
                    heard = torch.stack([latents[r.request] for r in running])
                    self.model.advance(state, heard.to(self.model.device))

    def _admit(self, index: int, request: GenerationRequest) -> _Running:
        # The last patch is generated but is never an input, so it takes no position.
        most = self.model.config.max_length - request.layout.length + 1
        if most < min(request.min_len + 2, request.most_patches):
            raise ValueError(
                f"the text and its audio take {request.layout.length} of the model's {self.model.config.max_length} positions, "
                "which leaves no room to speak: shorten the text, the prompt or the reference, or use generate_long"
            )
        wanted = max(1, request.most_patches)
        return _Running(index, request, min(wanted, most), context_limited=most < wanted)

    def _step(self, running: list[_Running], state: DecodeState) -> list[Patch]:
        config = self.model.config
        noise = torch.stack(
            [
                r.options.noise(r.index)
                if r.options.noise is not None
                else patch_noise(r.options.seed, r.index, config.patch_size, config.feat_dim)
                for r in running
            ]
        )
        cfg = torch.tensor([r.options.cfg for r in running], dtype=torch.float64)
        patches = self.model.draw_patches(state, noise, cfg, self.solver)
        n = len(running)
        logits = self.model.stop_logits(state.lm_hidden[:n]).float().cpu()
        stops = logits.argmax(dim=-1).tolist()
        # One copy to the host per step, and clones, because later steps overwrite the state.
        latents, lm, residual = patches.cpu(), state.lm_hidden[:n].clone(), state.residual_hidden[:n].clone()
        step = []
        for slot, r in enumerate(running):
            ending: Ending | None = None
            if r.index > r.options.min_len and stops[slot] == 1:
                ending = "stop"
            elif r.index + 1 >= r.limit:
                ending = "context" if r.context_limited else "max_len"
                if ending == "context":
                    log.warning("request %d was cut: the context of %d positions is full", r.request, config.max_length)
            step.append(Patch(r.request, r.index, latents[slot], ending, logits[slot], lm[slot], residual[slot]))
            r.index += 1
        return step


def generate_patches(
    model: VoxCPM2, requests: Sequence[GenerationRequest], solver: Solver | None = None, max_batch: int = 32
) -> list[Generation]:
    """Generate every request to its end, at most `max_batch` at once, and return the results in order."""
    results: list[Generation] = []
    for start in range(0, len(requests), max_batch):
        group = requests[start : start + max_batch]
        collected: list[list[Tensor]] = [[] for _ in group]
        endings: list[Ending] = ["max_len"] * len(group)
        for step in Decoder(model, group, solver or Solver()).run():
            for patch in step:
                collected[patch.request].append(patch.latents)
                endings[patch.request] = patch.ending or endings[patch.request]
        results += [
            Generation(torch.stack(patches), ending, request.seed)
            for patches, ending, request in zip(collected, endings, group, strict=True)
        ]
    return results
