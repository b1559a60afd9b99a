"""The one way to have something spoken: `speech = await speak(state, SpeechCall(...))`, then iterate over its samples.

    async with await speak(state, call) as speech:
        async for samples in speech:            # float32 [n] at state.link.about.sample_rate
            ...
    speech.result                               # seed, ending, patches, seconds, tokens

Refusals are raised as ApiError by `await speak(...)`, before anything is sent. Failures later are raised by the iteration.
Closing early (`aclose`, or the end of `async with`) cancels the call and frees its slot. The engine learns how much was taken:
asking for the next samples means that all earlier ones were played or sent.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from voxcpm.engine.scheduler import QUEUE
from voxcpm.server.access.keys import Key, Ticket
from voxcpm.server.errors import ApiError, busy, cancelled, unavailable
from voxcpm.server.process.messages import Audio, Cancel, Ending, Forget, Kind, Played, Speak, VoicePrompt
from voxcpm.server.process.result import SpeechResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxcpm.server.process.channel import Channel
    from voxcpm.server.state import ServerState

REPORT_S = 0.5
"""Seconds of audio between two reports of what the client has taken."""
AGAIN_S = 0.2
"""Seconds until a call that `continues` is tried again."""


@dataclass(frozen=True)
class SpeechCall:
    """One utterance to speak. Lengths are in patches (160 ms)."""

    text: str
    voice: VoicePrompt | None = None
    seed: int | None = None  #: None: drawn
    cfg: float = 2.0
    steps: int = 10
    min_len: int = 2
    max_len: int = 750
    ratio: float | None = 6.0  #: at most text tokens * this + 10 patches; None: only max_len
    kind: Kind = "live"
    deadline_s: float | None = None  #: of the first audio; the call is refused if it cannot be met
    adapter: str | None = None
    normalize: bool = False
    continues: bool = False  #: its listener hears what came before: it waits for a place instead of being refused (429)
    after: Speech | None = None  #: continue the words and patches of this earlier call, which had `keep`
    keep: bool = False  #: a later call will continue this one; `forget()` it then


class Speech:
    """A running call: an async iterator over its samples."""

    def __init__(self, state: ServerState, call: SpeechCall, channel: Channel, ticket: Ticket, seed: int) -> None:
        self.call = call
        self.result = SpeechResult(channel.number, seed, channel.accepted.text_tokens, channel.accepted.audio_tokens)
        self._state, self._channel, self._ticket = state, channel, ticket
        self._rate = state.link.about.sample_rate
        self._started = time.monotonic()
        self._told = 0.0
        self._over = False
        self._error: ApiError | None = None
        state.running.add(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> NDArray[np.float32]:
        """Return the next samples [n] float32. Raises ApiError if the engine failed, is gone, or the call was cancelled."""
        while not self._over:
            self._report()
            try:
                audio = await self._channel.next()
            except ApiError as error:
                self._finish("failed", error)
                raise
            self.result.patches = audio.patches
            samples = np.frombuffer(audio.samples, "<f4")
            if len(samples):
                if self.result.first_audio_s is None:
                    self.result.first_audio_s = time.monotonic() - self._started
                self.result.seconds += len(samples) / self._rate
            self._end_with(audio)
            if len(samples):
                return samples
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    def _end_with(self, audio: Audio) -> None:
        if audio.ending == "failed":
            words = audio.error or "the engine could not generate this utterance"
            self._finish("failed", ApiError(500, words, "server_error", code="generation_failed", retry=False))
        elif audio.ending == "cancelled":
            self._finish("cancelled", cancelled())
        elif audio.ending is not None:
            self._finish(audio.ending)

    def _report(self) -> None:
        if self.result.seconds - self._told >= REPORT_S:
            self._told = self.result.seconds
            self._state.link.send(Played(self.result.number, self._told))

    def _finish(self, ending: Ending, error: ApiError | None = None) -> None:
        if self._over:
            return
        self._over, self._error = True, error
        self.result.ending = ending
        self.result.error = error.message if error else None
        self.result.total_s = time.monotonic() - self._started
        self._channel.close()
        self._ticket.close(self.result.seconds)
        self._state.running.discard(self)
        # A record is kept: without the text, the voice and the earlier calls.
        self.call = replace(self.call, text="", voice=None, after=None)
        self._state.metrics.ended(self.result)

    def cancel(self) -> None:
        """Cancel from outside the task that iterates: the engine frees the slot, and the iteration raises ApiError."""
        if not self._over:
            self._state.link.send(Cancel(self.result.number))

    def interrupt(self, error: ApiError) -> None:
        """End the call with an error, at once: the iteration raises it."""
        if not self._over:
            self._state.link.send(Cancel(self.result.number))
            self._channel.fail(error)

    def forget(self) -> None:
        """Drop the words and patches that `keep` kept in the engine process."""
        if self.call.keep:
            self._state.link.send(Forget(self.result.number))

    async def aclose(self) -> None:
        """End the call: cancel it if it still runs. May be called more than once."""
        if not self._over:
            self._state.link.send(Cancel(self.result.number))
            self._finish("cancelled")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def check_new(state: ServerState) -> None:
    """Raise ApiError if a new request is not taken now, whatever it asks: 503 while stopping or loading, 429 if all is full."""
    if state.draining:
        raise unavailable("the server is stopping: ask again, another server may answer")
    state.link.check()
    load = state.link.load
    if load.slots and load.waiting >= QUEUE * load.slots:
        raise busy(f"{load.waiting} requests are waiting already", 1.0)


async def admit(state: ServerState, key: Key | None, characters: int) -> Ticket:
    """Admit a new request with this many characters of text; what it costs later needs no other leave. Raises ApiError."""
    check_new(state)
    return await state.keys.admit(key, characters)


async def speak(state: ServerState, call: SpeechCall, key: Key | None = None, ticket: Ticket | None = None) -> Speech:
    """Send a call to the engine and return it once the engine has accepted it.

    ticket: of a request that was admitted already, which the call closes. Raises ApiError: 503 if the server stops or the engine
    is not up, 429 if the key's quota or the engine's queue is full or the deadline cannot be met, 400 if the text does not fit.
    A call that `continues` waits where another one would get 429.
    """
    asked = time.monotonic()
    while True:
        try:
            speech = await _speak(state, call, key, ticket)
            speech.result.queued_s = time.monotonic() - asked
            return speech
        except ApiError as error:
            if not _waits(call, error):
                raise
        await asyncio.sleep(AGAIN_S)


def _waits(call: SpeechCall, error: ApiError) -> bool:
    return call.continues and error.status == 429 and bool(error.retry)


async def _speak(state: ServerState, call: SpeechCall, key: Key | None, ticket: Ticket | None) -> Speech:
    if ticket is None and call.continues:
        ticket = await state.keys.admit(key, len(call.text))
    elif ticket is None:
        ticket = await admit(state, key, len(call.text))
    seed = call.seed if call.seed is not None else secrets.randbelow(2**31)
    try:
        channel = await state.link.open(
            Speak(
                call=state.link.next_number(),
                text=call.text,
                seed=seed,
                voice=call.voice,
                cfg=call.cfg,
                steps=call.steps,
                min_len=call.min_len,
                max_len=call.max_len,
                ratio=call.ratio,
                kind=call.kind,
                deadline_s=math.inf if call.continues else call.deadline_s,
                adapter=call.adapter,
                normalize=call.normalize,
                after=call.after.result.number if call.after is not None else None,
                keep=call.keep,
            )
        )
    except BaseException as error:
        ticket.close(0.0, refused=True)
        if isinstance(error, ApiError) and not _waits(call, error):
            state.metrics.refused(error)
        raise
    return Speech(state, call, channel, ticket, seed)
