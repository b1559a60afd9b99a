"""The engine as its process uses it, and how it is built from a checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from voxcpm.server.process.messages import Ending, Speak

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from voxcpm.inference.speaker import VoxCPM2Model
    from voxcpm.sequence.prompt_layout import Layout


class Options(msgspec.Struct, frozen=True):
    """How to load the model: the first message of the HTTP process, as JSON."""

    checkpoint: str
    device: str = "auto"
    dtype: str | None = None
    slots: int | None = None
    adapters: dict[str, str] = {}


class Chunk(Protocol):
    """New audio of one request."""

    @property
    def number(self) -> int: ...
    @property
    def index(self) -> int: ...
    @property
    def samples(self) -> NDArray[np.float32] | None: ...
    @property
    def ending(self) -> Ending | None: ...
    @property
    def error(self) -> str | None: ...


class Engine(Protocol):
    """Continuous generation; called from one thread."""

    @property
    def idle(self) -> bool:
        """Return True if no request runs or waits."""
        ...

    def submit(self, request: Any) -> int:
        """Take a request and return its number. Raises ValueError if it does not fit, and the backend's `busy`."""
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

    def load(self) -> Mapping[str, int]:
        """Return the numbers of slots, and of requests that run and wait."""
        ...


@dataclass(frozen=True)
class Backend:
    """A loaded model and its engine."""

    model: VoxCPM2Model
    engine: Engine
    request: Callable[[Layout, Speak], Any]  #: makes what `engine.submit` takes
    busy: type[Exception]  #: raised by `submit` if the queue is full; has `retry_after_s`
    latents: Callable[
        [Chunk], Tensor | None
    ]  #: the patches [n, P, D] of a chunk, so that a later call can continue them


def weights_digest(folder: Path) -> str:
    """Return the sha256 of a checkpoint's weights file, hexadecimal; empty if there is none."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    return ""
