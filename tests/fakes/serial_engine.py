"""An engine process whose engine speaks one utterance at a time per slot, on `VoxCPM2Model.speak_patches`: no batching, no lanes.

Texts plan faults: "kill the engine" ends the process after two chunks, "make a fault" fails a request after two chunks.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from voxcpm.inference.speak_options import SpeakOptions
from voxcpm.inference.speaker import VoxCPM2Model
from voxcpm.sequence.prompt_layout import Layout
from voxcpm.server.process.backend import Backend, Options
from voxcpm.server.process.messages import Ending, Speak
from voxcpm.server.process.worker import main

AHEAD_S = 30.0
QUEUE = 8


class Busy(Exception):  # noqa: N818
    """The queue is full."""

    retry_after_s = 1.0


@dataclass(frozen=True)
class Chunk:
    """New audio of a request."""

    number: int
    index: int
    samples: np.ndarray | None = None
    ending: Ending | None = None
    error: str | None = None
    latents: Tensor | None = None


@dataclass
class Request:
    """What is asked of the engine."""

    layout: Layout
    speak: Speak


@dataclass
class Row:
    """A request that runs."""

    number: int
    request: Request
    patches: Iterator[tuple[Tensor, Any]]
    made: int = 0
    played_s: float = 0.0


class SerialEngine:
    """Runs up to `slots` requests in turn."""

    def __init__(self, model: VoxCPM2Model, slots: int) -> None:
        self.model, self.slots = model, slots
        self._numbers = itertools.count(1)
        self._waiting: list[Row] = []
        self._rows: list[Row] = []
        self._over: list[Chunk] = []

    @property
    def idle(self) -> bool:
        return not (self._rows or self._waiting or self._over)

    def submit(self, request: Request) -> int:
        if len(self._waiting) >= QUEUE:
            raise Busy("the queue is full: ask again")
        room = self.model.config.max_length - request.layout.length
        if room < 8:
            raise ValueError(f"the text takes {request.layout.length} of {self.model.config.max_length} positions")
        speak = request.speak
        options = SpeakOptions(
            min_len=speak.min_len, max_len=min(speak.max_len, room), inference_timesteps=speak.steps, cfg_value=speak.cfg,
            seed=speak.seed,
        )  # fmt: skip
        row = Row(next(self._numbers), request, self.model.speak_patches(request.layout, options))
        self._waiting.append(row)
        return row.number

    def cancel(self, number: int) -> None:
        for rows in (self._rows, self._waiting):
            for row in [row for row in rows if row.number == number]:
                rows.remove(row)
                self._over.append(Chunk(number, row.made, ending="cancelled"))

    def played(self, number: int, seconds: float) -> None:
        for row in self._rows:
            if row.number == number:
                row.played_s = seconds

    def step(self) -> list[Chunk]:
        chunks, self._over = self._over, []
        while self._waiting and len(self._rows) < self.slots:
            self._rows.append(self._waiting.pop(0))
        for row in list(self._rows):
            if row.made * 0.16 - row.played_s < AHEAD_S:
                chunks.append(self._advance(row))
        return chunks

    def _advance(self, row: Row) -> Chunk:
        text = row.request.speak.text
        if row.made == 2 and "kill the engine" in text:
            os.kill(os.getpid(), signal.SIGKILL)
        if row.made == 2 and "make a fault" in text:
            self._rows.remove(row)
            return Chunk(row.number, row.made, ending="failed", error="latents are not finite")
        audio, patch = next(row.patches)
        row.made += 1
        if patch.ending is not None:
            self._rows.remove(row)
        return Chunk(
            row.number, row.made - 1, audio[0].numpy().astype(np.float32), patch.ending, latents=patch.latents[None]
        )

    def load(self) -> dict[str, int]:
        return {"slots": self.slots, "running": len(self._rows), "waiting": len(self._waiting)}


def build(options: Options) -> Backend:
    """Load a checkpoint."""
    torch.set_num_threads(1)
    model = VoxCPM2Model.from_local(options.checkpoint, device="cpu", dtype=options.dtype)
    return Backend(
        model,
        SerialEngine(model, options.slots or 2),
        Request,
        Busy,
        lambda chunk: chunk.latents,  # type: ignore[attr-defined]
    )


if __name__ == "__main__":
    main(build)
