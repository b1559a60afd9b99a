"""Speak the units of a session one after the other; each continues the one before."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from voxcpm.server.access.keys import REVOKED
from voxcpm.server.calls import Speech, SpeechCall, speak
from voxcpm.server.errors import ApiError
from voxcpm.server.process.channel import CONTINUATION_LOST
from voxcpm.server.speech.answers import Encoding, statement_for
from voxcpm.server.speech.prepare import Prepared
from voxcpm.server.websocket.messages import SessionOptions, error_message

if TYPE_CHECKING:
    from voxcpm.server.access.keys import Key
    from voxcpm.server.state import ServerState

Send = Callable[[dict[str, Any] | bytes], Awaitable[None]]
"""Send a message or a binary frame to the client."""

PLACEHOLDER = "x"
"""Stands for the text when a configuration is checked."""


@dataclass(frozen=True)
class Unit:
    """A text to speak. utterance: what the client ended with input.done; index: of the unit in it."""

    text: str
    utterance: int
    index: int


@dataclass(frozen=True)
class Done:
    """The end of an utterance of `units` units."""

    utterance: int
    units: int


class Speaker:
    """Takes units from a queue and sends their audio. Lives as long as one configuration of the session."""

    def __init__(
        self,
        state: ServerState,
        key: Key | None,
        prepared: Prepared,
        options: SessionOptions,
        request_id: str,
        send: Send,
    ) -> None:
        self._state, self._key, self._request_id, self._send = state, key, request_id, send
        self._prepared, self._options = prepared, options
        self._lead = prepared.pieces[0].removesuffix(PLACEHOLDER)
        self._seed = prepared.call.seed if prepared.call.seed is not None else secrets.randbelow(2**31)
        self._spoken = 0
        self._before: Speech | None = None
        self._queue: asyncio.Queue[Unit | Done] = asyncio.Queue()
        self._work: asyncio.Task[None] | None = None
        self._loop = asyncio.create_task(self._run(), name="speaker")
        self._now: Unit | Done | None = None
        self.quiet = asyncio.Event()  #: nothing is spoken and nothing waits
        self.quiet.set()

    def put(self, item: Unit | Done) -> None:
        """Add a unit or an end."""
        if self.quiet.is_set():
            # A server that stops waits for what was taken, also between two units.
            self._state.answering += 1
            self.quiet.clear()
        self._queue.put_nowait(item)

    async def cancel(self) -> tuple[Unit | None, int]:
        """Stop the unit that is spoken and drop those that wait. Return (the stopped unit, the number of dropped ones)."""
        dropped = 0
        while not self._queue.empty():
            dropped += isinstance(self._queue.get_nowait(), Unit)
        stopped = None
        if self._work is not None and not self._work.done():
            stopped = self._now if isinstance(self._now, Unit) else None
            self._work.cancel()
            await asyncio.wait((self._work,))
        return stopped, dropped

    async def close(self) -> None:
        """Stop everything, and let the engine drop what it kept."""
        self._loop.cancel()
        try:
            await self.cancel()
            await asyncio.wait((self._loop,))
        finally:
            # A failure of either is not reported any more: the session has ended.
            _failure(self._loop)
            _failure(self._work)
            self._forget()
            self._be_quiet()

    def failure(self) -> BaseException | None:
        """Return why the speaker ended, None if it still works."""
        return _failure(self._loop)

    @property
    def ended(self) -> asyncio.Task[None]:
        """The task of the speaker: done if the client takes nothing any more."""
        return self._loop

    async def _run(self) -> None:
        while True:
            self._now = await self._queue.get()
            # A separate task, so that a cancelled unit does not end the speaker.
            self._work = asyncio.create_task(self._take(self._now))
            await asyncio.wait((self._work,))
            if (error := _failure(self._work)) is not None:
                raise error
            self._now = None
            if self._queue.empty():
                self._be_quiet()

    def _be_quiet(self) -> None:
        if not self.quiet.is_set():
            self._state.answering -= 1
            self.quiet.set()

    async def _take(self, item: Unit | Done) -> None:
        if isinstance(item, Done):
            done = {"type": "session.done", "utterance_index": item.utterance, "total_sentences": item.units}
            await self._send(done)
            return
        place = {"utterance_index": item.utterance, "sentence_index": item.index}
        sent = [0]
        try:
            await self._speak(item, place, sent)
        except ApiError as error:
            if error.code == REVOKED:
                # It ends the speaker, and the session with it.
                raise
            await self._send(error_message(error, "discard" if sent[0] else "retry", sent[0] > 0, **place))
            await self._send({"type": "audio.done", **place, "total_bytes": sent[0], "error": True})

    async def _speak(self, unit: Unit, place: dict[str, int], sent: list[int]) -> None:
        """Speak a unit; counts the bytes sent in `sent`. Raises ApiError."""
        async with await self._opened(unit) as speech:
            whole = False
            try:
                await self._send_audio(unit, place, sent, speech)
                whole = True
            finally:
                self._spoken += 1
                self._carry(speech, whole)

    async def _opened(self, unit: Unit) -> Speech:
        """Return the call of a unit, which continues the one before if the engine still has it. Raises ApiError."""
        try:
            return await speak(self._state, self._call(unit), self._key)
        except ApiError as error:
            if error.code != CONTINUATION_LOST:
                raise
            # The engine process was started again, or keeps too many: the unit begins in the session's own voice.
            self._before = None
            return await speak(self._state, self._call(unit), self._key)

    def _call(self, unit: Unit) -> SpeechCall:
        carried = self._before if self._options.carry else None
        return replace(
            self._prepared.call,
            # A unit that continues another has its style from there.
            text=unit.text if carried is not None else self._lead + unit.text,
            seed=(self._seed + self._spoken) % 2**63 if self._options.carry else self._seed,
            after=carried,
            keep=self._options.carry,
            continues=unit.index > 0,
        )

    async def _send_audio(self, unit: Unit, place: dict[str, int], sent: list[int], speech: Speech) -> None:
        statement = statement_for(self._state, self._prepared, speech.result.seed, self._request_id)
        encoding = Encoding.start(self._state, self._prepared, statement, speech.result.seed, unit.text)
        form = {"format": self._prepared.format, "sample_rate": self._prepared.rate, "channels": 1}
        about = {"sentence_text": unit.text, **form, "seed": speech.result.seed, "synthetic": statement is not None}
        about |= {"c2pa": "embedded"} if encoding.signed else {}
        await self._send({"type": "audio.start", **place, **about})
        held: list[bytes] = []
        async for samples in speech:
            await self._pass_on(await encoding.push(samples), held, sent)
        await self._pass_on(await encoding.finish(), held, sent)
        if not self._options.stream_audio:
            data = b"".join(held)
            if encoding.signed:
                data = await encoding.sign(data)
            await self._send(data)
            sent[0] += len(data)
        await self._send({"type": "audio.done", **place, "total_bytes": sent[0], "error": False})

    async def _pass_on(self, data: bytes, held: list[bytes], sent: list[int]) -> None:
        if not self._options.stream_audio:
            held.append(data)
        elif data:
            await self._send(data)
            sent[0] += len(data)

    def _carry(self, speech: Speech, whole: bool) -> None:
        """Keep the last unit that was spoken to its end for the next one; let the engine drop the other."""
        if not whole:
            speech.forget()
            return
        self._forget()
        self._before = speech

    def _forget(self) -> None:
        if self._before is not None:
            self._before.forget()
        self._before = None


def _failure(task: asyncio.Task[None] | None) -> BaseException | None:
    """Return the exception with which a task ended, None if there is none."""
    return task.exception() if task is not None and task.done() and not task.cancelled() else None
