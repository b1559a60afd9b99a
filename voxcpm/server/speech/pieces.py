"""A long text as one stream: every piece continues the one before, in one voice."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from voxcpm.server.access.keys import Ticket
from voxcpm.server.calls import speak
from voxcpm.server.errors import ApiError, cancelled
from voxcpm.server.process.messages import Ending
from voxcpm.server.process.result import SpeechResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from voxcpm.server.calls import Speech, SpeechCall
    from voxcpm.server.state import ServerState

LONGEST_S = 1800.0
"""Seconds of audio after which no further piece is begun."""


class SpeechPieces:
    """Speaks pieces one after the other; has the interface of `Speech`. The ticket is that of all pieces."""

    def __init__(
        self, state: ServerState, call: SpeechCall, pieces: tuple[str, ...], ticket: Ticket, first: Speech
    ) -> None:
        self.call, self.result = call, replace(first.result)
        self._state, self._left, self._ticket = state, deque(pieces[1:]), ticket
        self._speech = first
        self._opening: asyncio.Task[Speech] | None = None  # the next piece, which waits for a place
        self._cancelled = False
        self._before = SpeechResult(0, 0)  # sums of the pieces before the present one

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> NDArray[np.float32]:
        """Return the next samples. Raises ApiError as `Speech` does; a later piece waits for its place, it is not refused."""
        while self.result.ending is None:
            try:
                samples = await anext(self._speech)
            except StopAsyncIteration:
                self._add_up()
                if self._cancelled:
                    error = cancelled()
                    await self._end("cancelled", error)
                    raise error from None
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
            continues=True,
        )
        # A task, so that `cancel` can end the wait.
        self._opening = asyncio.create_task(speak(self._state, call, ticket=Ticket()))
        try:
            self._speech = await self._opened(self._opening)
        except ApiError as error:
            await self._end("cancelled" if self._cancelled else "failed", error)
            raise
        finally:
            self._opening = None
        earlier.forget()
        if self._cancelled:
            self._speech.cancel()

    async def _opened(self, opening: asyncio.Task[Speech]) -> Speech:
        """Wait for the next piece. Raises ApiError if it is refused or cancelled."""
        try:
            await asyncio.wait((opening,))
        except asyncio.CancelledError:
            opening.cancel()
            (found,) = await asyncio.gather(opening, return_exceptions=True)
            if not isinstance(found, BaseException):
                await found.aclose()
                found.forget()
            raise
        if opening.cancelled():
            raise cancelled()
        return opening.result()

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
        self._ticket.close(self.result.seconds)

    def cancel(self) -> None:
        """See `Speech.cancel`. It ends also a wait for the next piece."""
        self._cancelled = True
        self._speech.cancel()
        if self._opening is not None:
            self._opening.cancel()

    async def aclose(self) -> None:
        """See `Speech.aclose`."""
        if self.result.ending is None:
            await self._end("cancelled")


async def speak_pieces(
    state: ServerState, call: SpeechCall, pieces: tuple[str, ...], ticket: Ticket
) -> Speech | SpeechPieces:
    """Speak one or more pieces of an admitted request as one stream; closes its ticket. Raises ApiError as `speak` does."""
    if len(pieces) == 1:
        return await speak(state, call, ticket=ticket)
    try:
        first = await speak(state, replace(call, text=pieces[0], keep=True), ticket=Ticket())
    except BaseException:
        ticket.close(0.0, refused=True)
        raise
    return SpeechPieces(state, call, pieces, ticket, first)
