"""The three kinds of answers: whole, streamed audio, and server-sent events."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import re
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response

from voxcpm.provenance.c2pa import claim as provenance
from voxcpm.provenance.c2pa.library import C2paError
from voxcpm.provenance.c2pa.store import EMBEDDED
from voxcpm.provenance.statement import Statement
from voxcpm.provenance.watermark_hook import NO_WATERMARK
from voxcpm.server.access.cuts import CUT, SLOW
from voxcpm.server.encode import Encoder, encoder_for
from voxcpm.server.errors import ApiError
from voxcpm.watermark.speech import METHOD, checkpoint_payload, speech_mark

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from starlette.types import Receive, Scope, Send

    from voxcpm.server.calls import Speech
    from voxcpm.server.process.messages import VoicePrompt
    from voxcpm.server.speech.pieces import SpeechPieces
    from voxcpm.server.speech.prepare import Prepared
    from voxcpm.server.state import ServerState

log = logging.getLogger("voxcpm.server")

CHEAP = ("pcm", "wav")
"""Formats that are encoded in the event loop: handing them to a thread would cost more."""


@dataclass
class Encoding:
    """A stream of samples on its way to bytes."""

    state: ServerState
    prepared: Prepared
    encoder: Encoder
    statement: Statement | None = None

    @classmethod
    def start(cls, state: ServerState, prepared: Prepared, statement: Statement | None, *request: object) -> Encoding:
        """Make the encoder of an answer. request: what it is made from, e.g. its seed and text."""
        keys = state.watermark_keys
        watermark = speech_mark(_digest(state, prepared), keys, *request) if keys else NO_WATERMARK
        encoder = encoder_for(
            prepared.format,
            state.link.about.sample_rate,
            prepared.rate,
            statement,
            prepared.speed,
            whole=prepared.mode == "whole",
            watermark=watermark,
        )
        return cls(state, prepared, encoder, statement)

    async def push(self, samples: NDArray[np.float32]) -> bytes:
        """Mark and encode the next samples; the result may be empty."""
        return await self._run(lambda: self.encoder.push(samples))

    async def finish(self) -> bytes:
        """Return what is left at the end."""
        return await self._run(self.encoder.finish)

    @property
    def signed(self) -> bool:
        """Return True if the answer is signed: it is whole, and its format holds a manifest."""
        whole = self.prepared.mode == "whole" and self.prepared.format in EMBEDDED
        return whole and self.state.signing is not None and self.statement is not None

    async def sign(self, data: bytes) -> bytes:
        """Return the bytes of a whole answer with its manifest. Raises ApiError: an answer is not sent unsigned instead."""
        signing, statement = self.state.signing, self.statement
        assert signing is not None and statement is not None
        payload = checkpoint_payload(_digest(self.state, self.prepared)) if self.state.watermark_keys else None
        signing = replace(signing, clips=_clips(self.prepared.call.voice), payload=payload)
        try:
            work = asyncio.get_running_loop().run_in_executor(self.state.encoders, signing.sign, data, statement)
            return (await work).data
        except C2paError as error:
            log.error("an answer could not be signed: %s", error)
            raise ApiError(500, "the answer could not be signed", "server_error", code="not_signed") from None

    async def _run(self, act: Callable[[], bytes]) -> bytes:
        if self.prepared.format in CHEAP and self.prepared.speed == 1.0:
            return act()
        return await asyncio.get_running_loop().run_in_executor(self.state.encoders, act)


def statement_for(state: ServerState, prepared: Prepared, seed: int, request_id: str) -> Statement | None:
    """Return what the audio says about itself; None with --no-mark."""
    if state.settings.no_mark:
        return None
    return Statement(model=prepared.model, checkpoint=_digest(state, prepared), seed=seed, request_id=request_id)


def _digest(state: ServerState, prepared: Prepared) -> str | None:
    """Return the digest of the checkpoint with the adapter that speaks; None if it is not known."""
    return state.link.about.digest_with(prepared.call.adapter)


def watermark_name(state: ServerState, prepared: Prepared) -> str | None:
    """Return the method and the payload in hex of the watermark in the sound, None if it has none."""
    return f"{METHOD} {checkpoint_payload(_digest(state, prepared)):04x}" if state.watermark_keys else None


def answer_headers(state: ServerState, prepared: Prepared, seed: int, statement: Statement | None) -> dict[str, str]:
    """Return the headers that say what the audio is."""
    headers = {"X-Seed": str(seed), "X-Sample-Rate": str(prepared.rate), "Cache-Control": "no-store"}
    if (mark := watermark_name(state, prepared)) is not None:
        headers["X-Watermark"] = mark
    if prepared.ignored:
        # A header holds printable ASCII only.
        headers["X-Ignored-Fields"] = ", ".join(re.sub(r"[^ -~]", "?", name[:64]) for name in prepared.ignored[:32])
    return headers | (statement.headers() if statement is not None else {})


async def whole_audio(encoding: Encoding, speech: Speech | SpeechPieces) -> bytes:
    """Return all bytes of an utterance. Raises ApiError if it fails."""
    parts = [await encoding.push(samples) async for samples in speech]
    parts.append(await encoding.finish())
    data = b"".join(parts)
    return await encoding.sign(data) if encoding.signed else data


def _clips(voice: VoicePrompt | None) -> tuple[provenance.Clip, ...]:
    """Return the clips of a voice. The hash of one is known if it came with a request."""
    parts: dict[provenance.Role, Any] = {}
    if voice is not None:
        parts = {"reference": voice.reference, "prompt": voice.prompt}
    return tuple(
        provenance.Clip(getattr(part, "clip_sha256", None), role) for role, part in parts.items() if part is not None
    )


def usage_headers(speech: Speech | SpeechPieces) -> dict[str, str]:
    """Return the token counts of a whole answer, as vLLM-Omni names them."""
    result = speech.result
    read = result.text_tokens + result.audio_tokens
    counts = {
        "INPUT": read, "OUTPUT": result.patches, "TOTAL": read + result.patches,
        "INPUT-TEXT": result.text_tokens, "INPUT-AUDIO": result.audio_tokens,
    }  # fmt: skip
    return {f"X-VLLM-OMNI-{name}-TOKENS": str(count) for name, count in counts.items()}


async def audio_parts(encoding: Encoding, speech: Speech | SpeechPieces) -> AsyncGenerator[tuple[bytes, float]]:
    """Yield (bytes, seconds of audio handed out so far). Raises ApiError in the middle if the utterance fails."""
    async for samples in speech:
        if data := await encoding.push(samples):
            yield data, speech.result.seconds
    if data := await encoding.finish():
        yield data, speech.result.seconds


def event(values: dict[str, Any]) -> bytes:
    """Return one server-sent event."""
    return b"data: " + msgspec.json.encode(values) + b"\n\n"


async def sse_parts(encoding: Encoding, speech: Speech | SpeechPieces) -> AsyncGenerator[tuple[bytes, float]]:
    """Yield the events of an utterance as `audio_parts` does; a failure is an event, and the stream ends cleanly."""
    form = encoding.prepared.format
    sent = False
    try:
        async with contextlib.aclosing(audio_parts(encoding, speech)) as parts:
            async for data, seconds in parts:
                audio = base64.b64encode(data).decode()
                yield event({"type": "speech.audio.delta", "audio": audio, "response_format": form}), seconds
                sent = True
    except ApiError as error:
        if not sent:
            raise  # the answer has not begun, so that the error has a status
        about = error.body()["error"] | {"partial_audio": True, "action": "discard"}
        yield event({"type": "speech.audio.error", "error": about}), speech.result.seconds
        raise CleanEndError(error) from None
    yield event({"type": "speech.audio.done", "usage": speech.result.usage()}), speech.result.seconds


class CleanEndError(Exception):
    """The client was told of a failure in the stream itself, which then ends cleanly."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


class StreamedAnswer(Response):
    """Sends parts as they are made. The first part exists before it is called, so that an early failure has its own status.

    A client that goes away cancels the call. One that takes nothing for `slow_s` is cut. A failure in the middle cuts the
    connection, so that the client does not take the audio for complete.
    """

    def __init__(
        self,
        state: ServerState,
        speech: Speech | SpeechPieces,
        first: tuple[bytes, float],
        parts: AsyncGenerator[tuple[bytes, float]],
        media_type: str,
        headers: dict[str, str],
    ) -> None:
        self.status_code, self.background, self.media_type = 200, None, media_type
        # Without `body`, it has no Content-Length. nginx would collect the first audio before it passes it on.
        self.init_headers(headers | {"X-Accel-Buffering": "no"})
        self._state, self._speech, self._first, self._parts = state, speech, first, parts

    async def close(self) -> None:
        """End the call, of an answer that was sent or never will be."""
        await self._parts.aclose()
        await self._speech.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        work = asyncio.create_task(self._send_all(scope, send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                slow = SLOW in scope and scope[SLOW]()
                self._state.metrics.stream_ended("slow" if slow else "disconnect", 0.0)
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
            await self.close()
        if not work.cancelled() and (error := work.exception()) is not None:
            raise error

    async def _send_all(self, scope: Scope, send: Send) -> None:
        slow = self._state.settings.slow_reader_s
        player = _Player()
        reason: str | None = None
        try:
            async with asyncio.timeout(slow):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": self._first[0], "more_body": True})
            player.sent(self._first[1])
            async for data, seconds in self._parts:
                async with asyncio.timeout(slow):
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                player.sent(seconds)
                # Neither a full channel nor an empty socket buffer suspends: give way to the others, and to a disconnect.
                await asyncio.sleep(0)
        except CleanEndError as error:
            reason = error.error.code or "error"
        except TimeoutError:
            self._state.metrics.stream_ended("slow", player.underrun)
            scope[CUT](True)
            return
        except ApiError as error:
            self._state.metrics.stream_ended(error.code or "error", player.underrun)
            scope[CUT](False)
            return
        except Exception:
            self._state.metrics.stream_ended("error", player.underrun)
            scope[CUT](False)
            raise
        try:
            async with asyncio.timeout(slow):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            reason = "slow"
            scope[CUT](True)
        self._state.metrics.stream_ended(reason, player.underrun)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Player:
    """A player that starts with the first audio: how far the stream fell behind it."""

    def __init__(self) -> None:
        self.underrun = 0.0
        self._started: float | None = None
        self._had = 0.0

    def sent(self, seconds: float) -> None:
        """Take note of the audio sent so far."""
        now = time.monotonic()
        if self._started is None:
            self._started = now
        else:
            self.underrun = max(self.underrun, now - self._started - self._had)
        self._had = seconds


async def while_connected(receive: Receive, work: asyncio.Task[Any]) -> bool:
    """Wait for work, or until the client is gone; return True if the work is done."""
    gone = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
    # Asked last: the work may have ended during the wait above.
    return work.done()
