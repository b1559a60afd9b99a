"""An engine that answers at once in the HTTP process itself: for tests of what is around the engine.

Each word of a text is one patch of a constant tone. Texts plan events: "hold" waits after its first patch until it is cancelled,
"busy" is refused, "fault" fails after its first patch.
"""

from __future__ import annotations

import asyncio
import math
from typing import Literal

import numpy as np

from voxcpm.server.process.link import EngineLink
from voxcpm.server.process.messages import (
    Accepted,
    Audio,
    Cancel,
    Encode,
    Encoded,
    FromEngine,
    Latents,
    Load,
    Ready,
    Refused,
    Speak,
    ToEngine,
)

RATE, PATCH_S = 48_000, 0.16
PATCH = int(RATE * PATCH_S)


class ScriptedLink(EngineLink):
    """Has the interface of the link to the engine process."""

    def __init__(self) -> None:
        super().__init__((), b"")
        self.sent: list[ToEngine] = []
        self.load = Load(2, 0, 0)
        self.refusals: list[Literal["busy", "lost"]] = []  #: how the next calls that continue another one are refused
        self._held: set[int] = set()
        self._take(
            Ready(
                sample_rate=RATE,
                encode_rate=16_000,
                patch_seconds=PATCH_S,
                max_positions=4096,
                slots=2,
                digest="d" * 64,
                architecture="voxcpm2",
                device="cpu",
                dtype="float32",
            )
        )

    def start(self) -> None:
        """Nothing is started."""

    async def stop(self) -> None:
        """Nothing is stopped."""

    @property
    def texts(self) -> list[str]:
        """What was spoken, in order."""
        return [message.text for message in self.sent if isinstance(message, Speak)]

    def calls(self) -> list[Speak]:
        """The calls, in order."""
        return [message for message in self.sent if isinstance(message, Speak)]

    def send(self, message: ToEngine) -> None:
        """Answer a message, after the caller has gone on."""
        self.sent.append(message)
        for answer in self._answers(message):
            asyncio.get_running_loop().call_soon(self._take, answer)

    def _answers(self, message: ToEngine) -> list[FromEngine]:
        match message:
            case Speak():
                return self._speak(message)
            case Cancel() if message.call in self._held:
                self._held.discard(message.call)
                return [Audio(message.call, 1, b"", 1, "cancelled")]
            case Encode():
                patches = math.ceil(len(message.clip.data) / 4 / message.clip.rate / PATCH_S)
                level = np.abs(np.frombuffer(message.clip.data, "<f4")).max()
                values = np.full((patches, 2, 3), level if message.side == "right" else -level, "<f4")
                return [Encoded(message.call, Latents((patches, 2, 3), values.tobytes()))]
        return []

    def _speak(self, speak: Speak) -> list[FromEngine]:
        call, words = speak.call, speak.text.split()
        if speak.after is not None and self.refusals:
            return [Refused(call, self.refusals.pop(0), "not now", 1.0)]
        if "busy" in words:
            return [Refused(call, "busy", "the queue is full: ask again", 1.0)]
        patches = min(max(len(words), speak.min_len), speak.max_len)
        data = np.full(PATCH, 0.25, "<f4").tobytes()
        found: list[FromEngine] = [Accepted(call, len(words), 0)]
        if "hold" in words:
            self._held.add(call)
            return [*found, Audio(call, 0, data, 1)]
        if "fault" in words:
            return [
                *found,
                Audio(call, 0, data, 1),
                Audio(call, 1, b"", 1, "failed", "the model could not generate this"),
            ]
        return [*found, *(Audio(call, i, data, i + 1, "stop" if i + 1 == patches else None) for i in range(patches))]
