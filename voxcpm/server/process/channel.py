"""The answers of the engine process to one call."""

from __future__ import annotations

import asyncio

from voxcpm.server.errors import ApiError, busy, invalid
from voxcpm.server.process.messages import Accepted, Audio, Encoded, Refused

CONTINUATION_LOST = "continuation_lost"
"""Code of the error of a call that continues one that the engine process does not keep any more."""


class Channel:
    """The answers to one call."""

    def __init__(self, number: int, others: dict[int, Channel]) -> None:
        """others: the open channels by number, this one among them as long as it is open."""
        self.number = number
        self.accepted = Accepted(number, 0, 0)
        self._others = others
        self._queue: asyncio.Queue[Accepted | Refused | Audio | Encoded | ApiError] = asyncio.Queue()

    def put(self, message: Accepted | Refused | Audio | Encoded) -> None:
        """Add an answer."""
        self._queue.put_nowait(message)

    def fail(self, error: ApiError) -> None:
        """End the channel: answers that were not taken yet are dropped, and the next one asked for raises `error`."""
        self._clear()
        self._queue.put_nowait(error)

    async def answer(self) -> Accepted | Audio | Encoded:
        """Return the next answer. Raises ApiError if the call is refused or the channel failed."""
        message = await self._queue.get()
        if isinstance(message, ApiError):
            raise message
        if isinstance(message, Refused):
            raise _refusal(message)
        return message

    async def next(self) -> Audio:
        """Return the next audio. Raises ApiError as `answer` does."""
        message = await self.answer()
        assert isinstance(message, Audio)
        return message

    def close(self) -> None:
        """Drop answers that were not taken, and ignore later ones."""
        self._others.pop(self.number, None)
        self._clear()

    def _clear(self) -> None:
        while not self._queue.empty():
            self._queue.get_nowait()


def _refusal(message: Refused) -> ApiError:
    if message.reason == "busy":
        return busy(message.message, message.retry_after_s)
    if message.reason == "lost":
        return ApiError(409, message.message, code=CONTINUATION_LOST, retry=False)
    if message.reason == "invalid":
        return invalid(message.message)
    return ApiError(500, message.message, "server_error", code="internal_error", retry=False)
