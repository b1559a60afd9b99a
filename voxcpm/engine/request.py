"""What is asked of the engine, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from voxcpm.config import VoxCPM2Config
from voxcpm.model.flow import Solver
from voxcpm.sequence.prompt_layout import Layout

#: Why a generation ended: the model's stop decision, the limit on its length, a full context, or latents that are not finite.
Ending = Literal["stop", "max_len", "context", "failed"]


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
    solver: Solver = field(default_factory=Solver)

    @property
    def most_patches(self) -> int:
        """Maximum number of patches, from the text's length and max_len."""
        if self.ratio_threshold is None:
            return self.max_len
        return min(int(self.layout.target_tokens * self.ratio_threshold + 10), self.max_len)


@dataclass(frozen=True)
class Patch:
    """One step of one request."""

    request: int  #: the number that the request was given
    index: int
    latents: Tensor  #: [P, D] float32
    ending: Ending | None  #: set on the last patch; after "failed" the latents are not to be used
    stop_logits: Tensor  #: [2]
    lm_hidden: Tensor  #: [H], the TSLM state that conditioned the patch
    residual_hidden: Tensor  #: [H], the RALM state that conditioned it


@dataclass
class Generation:
    """A finished request."""

    patches: Tensor  #: [n, P, D] float32 on the CPU; without the last one if that was not finite
    ending: Ending
    seed: int
    attempts: int = 1  #: generations until this one, with retries of bad cases


@dataclass(eq=False)
class Row:
    """A request with its limits, from its admission to its end."""

    number: int
    request: GenerationRequest
    limit: int  #: most patches
    context_limited: bool  #: the limit is the context's, not the request's
    index: int = 0  #: of the next patch
    unheard: Tensor | None = None  #: [P, D], the last patch, if the context does not have it yet
    lane: int | None = None  #: capacity of the only lane that it may join; None: the smallest free one

    @property
    def positions(self) -> int:
        """Most positions of the context. The last patch is generated but is never an input, so it takes none."""
        return self.request.layout.length + self.limit - 1


def admit(config: VoxCPM2Config, number: int, request: GenerationRequest) -> Row:
    """Return the row of a request. Raises ValueError if its layout leaves no room to speak."""
    most = config.max_length - request.layout.length + 1
    if most < min(request.min_len + 2, request.most_patches):
        raise ValueError(
            f"the text and its audio take {request.layout.length} of the model's {config.max_length} positions, "
            "which leaves no room to speak: shorten the text, the prompt or the reference, or use generate_long"
        )
    wanted = max(1, request.most_patches)
    return Row(number, request, min(wanted, most), context_limited=most < wanted)


def patch_noise(seed: int, index: int, patch_size: int, feat_dim: int) -> Tensor:
    """Return noise [P, D] N(0,1) that depends on (seed, index) only: the same alone, in a batch, after a restart, on any device."""
    mixed = (seed * 0x9E3779B97F4A7C15 + index * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & (2**64 - 1)
    mixed = ((mixed ^ (mixed >> 31)) * 0xD6E8FEB86659FD93) & (2**63 - 1)
    return torch.randn(patch_size, feat_dim, generator=torch.Generator().manual_seed(mixed))
