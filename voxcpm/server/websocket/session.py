"""One WebSocket session: read messages, collect text, hand units to the speaker."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from voxcpm.server.access.keys import REVOKED, Ticket
from voxcpm.server.calls import admit
from voxcpm.server.errors import ApiError, invalid
from voxcpm.server.guard import key_of, request_id_of
from voxcpm.server.speech.fields import read_fields
from voxcpm.server.speech.prepare import Mode, prepare
from voxcpm.server.websocket.messages import (
    CONFIG_S,
    IDLE_S,
    MOST_MESSAGE,
    MOST_TEXT,
    SessionOptions,
    error_message,
    parse_message,
    split_config,
)
from voxcpm.server.websocket.speaker import PLACEHOLDER, Done, Speaker, Unit
from voxcpm.server.websocket.text_units import TextUnits

if TYPE_CHECKING:
    from voxcpm.server.state import ServerState

#: Longest unit in estimated seconds, if it continues the one before, and if it stands alone.
_LONGEST_S = {True: 12.0, False: 30.0}
NORMAL, REFUSED, TOO_LONG, TRY_LATER = 1000, 1008, 1009, 1013
"""WebSocket close codes."""


class _End(Exception):  # noqa: N818 (not an error of ours: it ends the session)
    """The session ends with this close code and, if there is one, this error message before it."""

    def __init__(self, code: int, error: ApiError | None = None) -> None:
        super().__init__(code)
        self.code, self.error = code, error


class Session:
    """The state of a session."""

    def __init__(self, state: ServerState, socket: WebSocket) -> None:
        self._state, self._socket = state, socket
        self._lock = asyncio.Lock()
        self._speaker: Speaker | None = None
        self._units = TextUnits("none")
        self._options = SessionOptions.model_validate({})
        self._utterance, self._index = 0, 0
        self._is_open = False  # text of the utterance has arrived
        self._due: float | None = None  # when the words that wait are spoken
        self._last = time.monotonic()  # of a message, or of the end of audio
        self._text_bytes = 0
        self._closing = False

    async def run(self) -> None:
        """Serve the session to its end."""
        try:
            await self._read()
        except _End as end:
            await self._say_goodbye(end)
        except WebSocketDisconnect:
            pass
        finally:
            if self._speaker is not None:
                await self._speaker.close()

    async def _say_goodbye(self, end: _End) -> None:
        if self._speaker is not None:
            await self._speaker.close()
        # The client may be gone, or take nothing.
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError, OSError):
            async with asyncio.timeout(5.0):
                if end.error is not None:
                    await self._send(error_message(end.error, "close"))
                await self._socket.close(end.code)

    async def _send(self, message: dict[str, Any] | bytes) -> None:
        """Send to the client. Raises _End if it takes nothing for a while."""
        try:
            async with self._lock, asyncio.timeout(self._state.settings.slow_reader_s):
                if isinstance(message, bytes):
                    await self._socket.send_bytes(message)
                else:
                    await self._socket.send_json(message)
        except TimeoutError:
            raise _End(TRY_LATER) from None
        except (RuntimeError, OSError):
            raise WebSocketDisconnect(1006) from None

    # -- reading -------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        receiving: asyncio.Task[Any] | None = None
        try:
            while True:
                receiving = receiving or asyncio.create_task(self._receive())
                waiting: set[asyncio.Task[Any]] = {receiving}
                quiet = None
                if self._speaker is not None:
                    waiting.add(self._speaker.ended)
                    if self._closing:
                        quiet = asyncio.create_task(self._speaker.quiet.wait())
                        waiting.add(quiet)
                try:
                    await asyncio.wait(waiting, timeout=self._patience(), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if quiet is not None:
                        quiet.cancel()
                self._check_speaker()
                if receiving.done():
                    raw, receiving = receiving.result(), None
                    self._last = time.monotonic()
                    await self._take(raw)
                else:
                    self._on_time()
        finally:
            if receiving is not None:
                receiving.cancel()
                await asyncio.wait((receiving,))
                if not receiving.cancelled():
                    receiving.exception()  # Retrieved: the session has ended anyway.

    async def _receive(self) -> str | None:
        """Return the next text; None for a binary frame. Raises WebSocketDisconnect."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006))
        text = message.get("text")
        return text if isinstance(text, str) else None

    def _check_speaker(self) -> None:
        if self._speaker is None:
            return
        if self._speaker.ended.done():
            failure = self._speaker.failure()
            raise _End(REFUSED, failure) if isinstance(failure, ApiError) else failure or _End(REFUSED)
        if self._speaker.quiet.is_set():
            if self._closing:
                raise _End(NORMAL)
        else:
            self._last = time.monotonic()

    def _patience(self) -> float:
        """Return the seconds until something is due without a message."""
        now = time.monotonic()
        ends = [self._last + (IDLE_S if self._speaker is not None else CONFIG_S)]
        if self._due is not None:
            ends.append(self._due)
        return max(0.0, min(ends) - now)

    def _on_time(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        if self._due is not None and now >= self._due:
            self._due = None
            self._put(self._units.take_words())
            self._last = now
        elif self._speaker is None and now - self._last >= CONFIG_S:
            raise _End(REFUSED, ApiError(408, f"no session.config within {CONFIG_S:g} s", code="config_timeout"))
        elif self._speaker is not None and self._speaker.quiet.is_set() and now - self._last >= IDLE_S:
            raise _End(
                NORMAL, ApiError(408, f"no message within {IDLE_S:g} s: the session is closed", code="idle_timeout")
            )

    # -- messages ------------------------------------------------------------------------------------------------------

    async def _take(self, raw: str | None) -> None:
        """Handle one message. A wrong one is answered with an error; before the configuration it ends the session."""
        try:
            message = None if raw is None else await self._parse(raw)
            if raw is None or message is None:
                raise invalid("messages are texts in JSON: binary frames are not read")
            if message["type"] != "session.config":
                self._count(raw)
                if self._speaker is None:
                    raise invalid(f"send session.config before {message['type']}", "type")
            await self._handle(message)
        except ApiError as error:
            if self._speaker is None or error.code == REVOKED:
                raise _End(REFUSED, error) from None
            self._count(raw or "")
            await self._send(error_message(error, "fix"))

    async def _parse(self, raw: str) -> dict[str, Any]:
        """Return a message; a long configuration does not hold up other requests. Raises ApiError."""
        most = self._state.settings.max_body
        if len(raw) <= MOST_MESSAGE:
            return parse_message(raw, most)
        return await asyncio.to_thread(parse_message, raw, most)

    def _count(self, raw: str) -> None:
        """Count a message; a wrong one counts twice. Raises _End if there were too many."""
        self._text_bytes += len(raw)
        if self._text_bytes > MOST_TEXT:
            words = f"a session takes {MOST_TEXT} bytes of messages: open another one"
            raise _End(TOO_LONG, ApiError(413, words, code="session_too_long"))

    async def _handle(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "session.config":
                await self._configure(message)
            case "input.text":
                self._add(message["text"])
            case "input.commit":
                units = self._flush()
                about = {"utterance_index": self._utterance, "total_sentences": self._index, "units": units}
                await self._send({"type": "input.committed", **about})
            case "input.done":
                self._flush()
                self._put_end()
            case "input.cancel":
                await self._cancel()
            case "session.close":
                self._closing = True

    async def _configure(self, message: dict[str, Any]) -> None:
        """Check a configuration and take it. Raises ApiError; the earlier one then stays."""
        if self._speaker is not None and (self._is_open or not self._speaker.quiet.is_set()):
            raise invalid("session.config: an utterance is in progress; send input.done or input.cancel first", "type")
        options, body, ignored = split_config(message)
        fields, unknown = read_fields({**body, "input": PLACEHOLDER}, self._state.settings.strict)
        mode: Mode = "audio" if options.stream_audio else "whole"
        key = self._state.keys.current(key_of(self._socket))
        ticket = Ticket()
        if fields.ref_audio or fields.references:
            # A clip is decoded and encoded as part of the key's calls at once.
            ticket = await admit(self._state, key, 0)
        try:
            prepared = await prepare(self._state, fields, [*unknown, *ignored], mode)
        finally:
            ticket.close(0.0, refused=True)
        if self._speaker is not None:
            await self._speaker.close()
        request_id = request_id_of(self._socket)
        self._speaker = Speaker(self._state, key, prepared, options, request_id, self._send)
        self._options = options
        self._units = TextUnits(options.split_granularity, _LONGEST_S[options.carry])
        form = {"format": prepared.format, "sample_rate": prepared.rate}
        about = {"session_id": request_id, "model": prepared.model, **form, "ignored_fields": list(prepared.ignored)}
        await self._send({"type": "session.configured", **about})

    def _add(self, text: str) -> None:
        if not text:
            return
        self._is_open = True
        self._put(self._units.push(text))
        if not self._units.waiting:
            self._due = None
        elif self._due is None and self._options.max_buffer_delay_ms is not None:
            self._due = time.monotonic() + self._options.max_buffer_delay_ms / 1000

    def _flush(self) -> int:
        """Hand over the rest of the text; return the number of units that it made."""
        units = self._units.flush()
        self._put(units)
        self._due = None
        return len(units)

    def _put(self, units: list[str]) -> None:
        assert self._speaker is not None
        for text in units:
            self._speaker.put(Unit(text, self._utterance, self._index))
            self._index += 1

    def _put_end(self) -> None:
        assert self._speaker is not None
        self._speaker.put(Done(self._utterance, self._index))
        self._next_utterance()

    def _next_utterance(self) -> None:
        self._utterance, self._index, self._is_open = self._utterance + 1, 0, False

    async def _cancel(self) -> None:
        """Drop the text that waits and the audio that was not sent: somebody interrupts."""
        assert self._speaker is not None
        self._units.clear()
        self._due = None
        stopped, dropped = await self._speaker.cancel()
        at = {"utterance_index": self._utterance, "sentence_index": None}
        if stopped is not None:
            at = {"utterance_index": stopped.utterance, "sentence_index": stopped.index}
        await self._send({"type": "audio.cancelled", **at, "dropped": dropped})
        if self._is_open or self._index:
            self._next_utterance()


async def serve_session(state: ServerState, socket: WebSocket) -> None:
    """Accept a WebSocket and serve it."""
    wanted = socket.scope.get("subprotocols") or []
    # The key comes as another subprotocol; a browser asks that one of those it named is chosen.
    await socket.accept("realtime" if "realtime" in wanted else None)
    await Session(state, socket).run()
