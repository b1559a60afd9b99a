"""A long text as one stream: every piece continues the one before, in one voice."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Self

from voxcpm.server.calls import speak
from voxcpm.server.process.result import SpeechResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from voxcpm.server.access.keys import Key
    from voxcpm.server.calls import Speech, SpeechCall
    from voxcpm.server.state import ServerState

LONGEST_S = 1800.0
"""Seconds of audio after which no further piece is begun."""


class SpeechPieces:
    """Speaks pieces one after the other; has the interface of `Speech`."""

    def __init__(
        self, state: ServerState, call: SpeechCall, pieces: tuple[str, ...], key: Key | None, first: Speech
    ) -> None:
        self.call, self.result = call, replace(first.result)
        self._state, self._pieces, self._key = state, pieces, key
        self._speech, self._next = first, 1
        self._base = SpeechResult(0, 0)  # sums of the pieces before the present one

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> NDArray[np.float32]:
        """Return the next samples. Raises ApiError as `Speech` does, also if a later piece is refused."""
        while True:
            try:
                samples = await anext(self._speech)
            except StopAsyncIteration:
                self._add_up()
                if self._next < len(self._pieces) and self.result.seconds >= LONGEST_S:
                    await self.aclose()
                    self.result.ending = "max_len"
                    raise
                if self._next == len(self._pieces):
                    await self.aclose()
                    raise
                await self._continue()
                continue
            finally:
                self._add_up()
            return samples

    async def _continue(self) -> None:
        before, last = self._speech, self._next + 1 == len(self._pieces)
        done = before.result
        self._base = replace(self.result, seconds=self.result.seconds)
        call = replace(
            self.call,
            text=self._pieces[self._next],
            seed=(done.seed + 1) % 2**63,
            after=before,
            keep=not last,
            deadline_s=None,
        )
        self._speech = await speak(self._state, call, self._key)
        before.forget()
        self._next += 1

    def _add_up(self) -> None:
        now, base, total = self._speech.result, self._base, self.result
        total.text_tokens = base.text_tokens + now.text_tokens
        total.audio_tokens = base.audio_tokens + now.audio_tokens
        total.patches = base.patches + now.patches
        total.seconds = base.seconds + now.seconds
        total.first_audio_s = total.first_audio_s if total.first_audio_s is not None else now.first_audio_s
        total.total_s = (base.total_s or 0.0) + now.total_s if now.total_s is not None else None
        over = self._next == len(self._pieces) or now.ending in ("failed", "cancelled")
        total.ending, total.error = (now.ending if over else None), now.error

    def cancel(self) -> None:
        """See `Speech.cancel`."""
        self._next = len(self._pieces)
        self._speech.cancel()

    async def aclose(self) -> None:
        """See `Speech.aclose`."""
        self._next = len(self._pieces)
        await self._speech.aclose()
        self._speech.forget()
        self._add_up()


async def speak_pieces(
    state: ServerState, call: SpeechCall, pieces: tuple[str, ...], key: Key | None
) -> Speech | SpeechPieces:
    """Speak one or more pieces as one stream. Raises ApiError as `speak` does."""
    if len(pieces) == 1:
        return await speak(state, call, key)
    first = await speak(state, replace(call, text=pieces[0], keep=True), key)
    return SpeechPieces(state, call, pieces, key, first)
