"""The engine as its process uses it, and how it is built from a checkpoint."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from voxcpm.server.process.messages import Ending, Kind, Speak

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from voxcpm.engine.request import GenerationRequest
    from voxcpm.inference.speaker import VoxCPM2Model
    from voxcpm.sequence.prompt_layout import Layout

DEADLINE_S = {"cuda": 0.5}
"""Longest wait for first audio at admission, by type of device."""
OTHER_DEADLINE_S = 10.0
CONTEXT = 3
"""Patches of a prompt that the codec decodes before the first new one, as `SpeakOptions.streaming_prefix_len` says."""


class Options(msgspec.Struct, frozen=True):
    """How to load the model: the first message of the HTTP process, as JSON."""

    checkpoint: str
    device: str = "auto"
    dtype: str | None = None
    slots: int | None = None
    threads: int | None = None
    adapters: dict[str, str] = {}


class Chunk(Protocol):
    """New audio of one request: voxcpm.engine.engine.Chunk."""

    @property
    def number(self) -> int: ...
    @property
    def index(self) -> int: ...
    @property
    def samples(self) -> NDArray[np.float32] | None: ...
    @property
    def latents(self) -> Tensor | None: ...
    @property
    def ending(self) -> Ending | None: ...
    @property
    def error(self) -> str | None: ...


class Engine(Protocol):
    """Continuous generation, called from one thread: voxcpm.engine.engine.SpeechEngine."""

    @property
    def idle(self) -> bool:
        """Return True if no request runs or waits."""
        ...

    def submit(
        self, request: GenerationRequest, kind: Kind = "live", deadline_s: float = 10.0, context: Tensor | None = None
    ) -> int:
        """Take a request and return its number. Raises ValueError if it does not fit, EngineBusyError if it must wait."""
        ...

    def cancel(self, number: int) -> None:
        """End a request; its last chunk has the ending "cancelled"."""
        ...

    def played(self, number: int, seconds: float) -> None:
        """Take note of how much of a request's audio the client has taken."""
        ...

    def step(self) -> Sequence[Chunk]:
        """Generate the next patch of the rows that run; nothing if all of them pause."""
        ...

    def load(self) -> Mapping[str, float]:
        """Return the numbers of slots, and of requests that run and wait."""
        ...


@dataclass(frozen=True)
class Backend:
    """A loaded model, and what makes an engine for it. A new engine has no caches of an earlier adapter."""

    model: VoxCPM2Model
    new_engine: Callable[[], Engine]


def submit(engine: Engine, layout: Layout, speak: Speak, device: str) -> int:
    """Give a call to the engine. Raises ValueError and EngineBusyError as `Engine.submit` does."""
    from voxcpm.engine.request import GenerationRequest
    from voxcpm.model.flow import Solver

    request = GenerationRequest(
        layout=layout,
        seed=speak.seed,
        cfg=speak.cfg,
        min_len=speak.min_len,
        max_len=speak.max_len,
        ratio_threshold=speak.ratio,
        solver=Solver(steps=speak.steps),
    )
    deadline = speak.deadline_s if speak.deadline_s is not None else DEADLINE_S.get(device, OTHER_DEADLINE_S)
    return engine.submit(request, speak.kind, deadline, layout.context(CONTEXT))


def build(options: Options) -> Backend:
    """Load a checkpoint. Raises FileNotFoundError, CheckpointError and ValueError."""
    from voxcpm.engine.engine import SpeechEngine, plan_slots
    from voxcpm.inference.speaker import VoxCPM2Model
    from voxcpm.kernels.threads import spare_threads

    if options.threads is not None:
        import torch

        torch.set_num_threads(options.threads)
    else:
        # A server has the cores for itself, and several rows make larger products than one utterance.
        spare_threads(Path(options.checkpoint), below=100e6)
    device = None if options.device == "auto" else options.device
    model = VoxCPM2Model.from_local(options.checkpoint, device=device, dtype=options.dtype)
    lanes = plan_slots(model.backbone, options.slots)
    return Backend(model, lambda: SpeechEngine(model.backbone, model.audio_vae, lanes))


def read_digests(options: Options) -> Future[dict[str | None, str]]:
    """Return the digests of a checkpoint's and the adapters' files; empty if they cannot be read.

    A thread reads them while the model is loaded.
    """
    from voxcpm.provenance.source import checkpoint_digests
    from voxcpm.weights.checkpoint import find_checkpoint

    found: Future[dict[str | None, str]] = Future()
    adapters = {name: Path(folder) for name, folder in options.adapters.items()}

    def read() -> None:
        try:
            found.set_result(checkpoint_digests(find_checkpoint(options.checkpoint, local_files_only=True), adapters))
        except (OSError, ValueError):
            found.set_result({})

    threading.Thread(target=read, daemon=True).start()
    return found
