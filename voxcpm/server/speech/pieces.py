"""A long text as one stream: every piece continues the one before, in one voice."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from voxcpm.server.calls import speak
from voxcpm.server.errors import ApiError
from voxcpm.server.process.messages import Ending
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
        self._state, self._left, self._key = state, deque(pieces[1:]), key
        self._speech = first
        self._before = SpeechResult(0, 0)  # sums of the pieces before the present one

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> NDArray[np.float32]:
        """Return the next samples. Raises ApiError as `Speech` does, also if a later piece is refused."""
        while self.result.ending is None:
            try:
                samples = await anext(self._speech)
            except StopAsyncIteration:
                self._add_up()
                if not self._left or self.result.seconds >= LONGEST_S:
                    await self._end("max_len" if self._left else self._speech.result.ending or "stop")
                    break
                await self._continue()
            except ApiError as error:
                await self._end(self._speech.result.ending or "failed", error)
                raise
            else:
                self._add_up()
                return samples
        raise StopAsyncIteration

    async def _continue(self) -> None:
        earlier = self._speech
        self._before = replace(self.result)
        call = replace(
            self.call,
            text=self._left.popleft(),
            seed=(earlier.result.seed + 1) % 2**63,
            after=earlier,
            keep=bool(self._left),
            deadline_s=None,  # the listener waits in any case
        )
        try:
            self._speech = await speak(self._state, call, self._key)
        except ApiError as error:
            await self._end("failed", error)
            raise
        earlier.forget()

    def _add_up(self) -> None:
        now, before, total = self._speech.result, self._before, self.result
        total.text_tokens = before.text_tokens + now.text_tokens
        total.audio_tokens = before.audio_tokens + now.audio_tokens
        total.patches = before.patches + now.patches
        total.seconds = before.seconds + now.seconds
        total.first_audio_s = now.first_audio_s if total.first_audio_s is None else total.first_audio_s

    async def _end(self, ending: Ending, error: ApiError | None = None) -> None:
        await self._speech.aclose()
        self._speech.forget()
        self._add_up()
        self.result.ending, self.result.error = ending, error.message if error else None
        self.result.total_s = time.time() - self.result.asked_at
        # A record is kept: without the texts and the voice.
        self.call = replace(self.call, text="", voice=None)
        self._left.clear()

    def cancel(self) -> None:
        """See `Speech.cancel`."""
        self._left.clear()
        self._speech.cancel()

    async def aclose(self) -> None:
        """See `Speech.aclose`."""
        if self.result.ending is None:
            await self._end("cancelled")


async def speak_pieces(
    state: ServerState, call: SpeechCall, pieces: tuple[str, ...], key: Key | None
) -> Speech | SpeechPieces:
    """Speak one or more pieces as one stream. Raises ApiError as `speak` does."""
    if len(pieces) == 1:
        return await speak(state, call, key)
    first = await speak(state, replace(call, text=pieces[0], keep=True), key)
    return SpeechPieces(state, call, pieces, key, first)
