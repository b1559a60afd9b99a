"""One Wyoming connection: read events, divide the text into units, send their audio as events.

Every error ends the connection after its event: Home Assistant reads no errors and waits for the end of the audio.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from voxcpm.server.errors import ApiError, invalid, not_found, unknown
from voxcpm.server.settings import DEFAULT_VOICE
from voxcpm.server.speech.answers import statement_for
from voxcpm.server.speech.fields import SpeechFields
from voxcpm.server.speech.prepare import Prepared, prepare
from voxcpm.server.websocket.messages import SessionOptions
from voxcpm.server.websocket.speaker import PLACEHOLDER, Done, Speaker, Unit
from voxcpm.server.websocket.text_units import TextUnits
from voxcpm.server.wyoming.description import info, languages, programs
from voxcpm.server.wyoming.events import Event, read_event

if TYPE_CHECKING:
    from voxcpm.server.state import ServerState

IDLE_S = 60.0
"""Seconds without a complete event and without audio after which a connection is closed."""
MOST_WAITING = 64
"""Events that may wait while an earlier text is spoken."""
LONGEST_S = 12.0
"""Longest unit, in estimated seconds of speech."""
WIDTH, CHANNELS = 2, 1
"""Bytes of a sample; mono."""
GOODBYE_S = 5.0
_OPENS = ("synthesize", "synthesize-start", "select-program")
"""Events that wait until an earlier text was spoken."""
_VOICE = ("name", "language", "speaker")
"""Fields of a voice."""


class _Gone(Exception):  # noqa: N818 (not an error of ours)
    """The client takes nothing any more."""


class Connection:
    """The state of a connection."""

    def __init__(self, state: ServerState, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._state, self._reader, self._writer = state, reader, writer
        self._lock = asyncio.Lock()
        self._program = programs(state)[0]
        self._waiting: deque[Event] = deque()
        self._waiting_characters = 0
        self._stream_received = False  # a synthesize-start arrived, and its synthesize-stop did not
        self._last = time.monotonic()  # of an event, or of the end of audio
        # Of the text that is spoken:
        self._speaker: Speaker | None = None
        self._prepared: Prepared | None = None
        self._units: TextUnits | None = None  # while its text arrives in pieces
        self._streamed = False
        self._characters, self._count = 0, 0
        self._request_id = ""
        self._begun = False  # audio-start was sent
        self._samples = 0

    async def run(self) -> None:
        """Serve the connection to its end."""
        try:
            await self._serve()
        except ApiError as error:
            await self._close_speaker()
            with contextlib.suppress(_Gone, TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await self._send(Event("error", {"text": error.message, "code": error.code or error.kind}))
        except _Gone:
            pass
        finally:
            await self._close_speaker()

    async def _serve(self) -> None:
        reading: asyncio.Task[Event | None] | None = None
        try:
            while True:
                await self._take_waiting()
                reading = reading or asyncio.create_task(read_event(self._reader))
                await self._wait(reading)
                if reading.done():
                    event, reading = reading.result(), None
                    if event is None:
                        return  # The client has left: what it asked for is cancelled.
                    self._last = time.monotonic()
                    await self._receive(event)
                elif self._quiet and time.monotonic() - self._last >= IDLE_S:
                    return
        except ConnectionError:
            raise _Gone from None
        finally:
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _wait(self, reading: asyncio.Task[Event | None]) -> None:
        """Wait for an event, the end of the audio, or the end of patience. Raises what ended the speaker."""
        waiting: set[asyncio.Task[Any]] = {reading}
        quiet: asyncio.Task[Any] | None = None
        patience: float | None = None
        if self._speaker is not None:
            waiting.add(self._speaker.ended)
        if self._speaker is not None and not self._speaker.quiet.is_set():
            quiet = asyncio.create_task(self._speaker.quiet.wait())
            waiting.add(quiet)
        else:
            patience = max(0.0, self._last + IDLE_S - time.monotonic())
        try:
            await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if quiet is not None:
                quiet.cancel()
        if self._speaker is not None and self._speaker.ended.done():
            raise self._speaker.failure() or _Gone()
        if quiet is not None and self._quiet:
            self._last = time.monotonic()

    @property
    def _quiet(self) -> bool:
        return self._speaker is None or self._speaker.quiet.is_set()

    # -- events --------------------------------------------------------------------------------------------------------

    async def _receive(self, event: Event) -> None:
        """Answer at once what does not depend on the text that is spoken; let the rest wait for its turn."""
        match event.type:
            case "ping":
                await self._send(Event("pong", {"text": event.data.get("text")}))
            case "describe":
                await self._send(await info(self._state))
            case "synthesize" if self._stream_received:
                pass  # Beside a streamed text, Home Assistant sends the whole of it again for servers that do not stream.
            case "select-program" | "synthesize" | "synthesize-start" | "synthesize-chunk" | "synthesize-stop":
                self._enqueue(_reduced(event))
            case _:
                pass  # The protocol asks servers to drop events that they do not know.

    def _enqueue(self, event: Event) -> None:
        """Let an event wait. Raises ApiError if too many of them, or too many characters, are waiting."""
        most, size = self._state.settings.max_long_characters, _characters(event)
        if size > most:
            raise _long_text(most)
        if len(self._waiting) >= MOST_WAITING or self._waiting_characters + size > most:
            what = f"{MOST_WAITING} events" if len(self._waiting) >= MOST_WAITING else f"more than {most} characters"
            raise invalid(f"{what} are waiting: wait for audio-stop, or open another connection")
        self._stream_received = event.type != "synthesize-stop" and (
            self._stream_received or event.type == "synthesize-start"
        )
        self._waiting.append(event)
        self._waiting_characters += size

    async def _take_waiting(self) -> None:
        while self._waiting and not (self._waiting[0].type in _OPENS and self._units is None and not self._quiet):
            event = self._waiting.popleft()
            self._waiting_characters -= _characters(event)
            await self._take(event)

    async def _take(self, event: Event) -> None:
        match event.type:
            case "select-program":
                self._select(event.data)
            case "synthesize":
                text = _text(event.data)
                await self._open(event.data, "none", False)
                self._add(text)
                self._finish()
            case "synthesize-start":
                if self._units is not None:
                    raise invalid("a text is streamed already: send synthesize-stop first, or open another connection")
                await self._open(event.data, "sentence", True)
            case "synthesize-chunk":
                self._add(_text(event.data))
            case "synthesize-stop":
                self._finish()

    def _select(self, data: dict[str, Any]) -> None:
        name, known = data.get("name"), programs(self._state)
        if not isinstance(name, str) or name not in known:
            raise not_found(unknown("program", str(name), known), "name", "model_not_found")
        self._program = name

    # -- the text that is spoken ---------------------------------------------------------------------------------------

    async def _open(self, data: dict[str, Any], granularity: Any, streamed: bool) -> None:
        """Begin a text. Raises ApiError."""
        if data.get("text_format") not in (None, "text"):
            raise invalid("text_format: plain text is spoken only: send text_format text", "text_format")
        voice = self._voice(data["voice"])
        fields = SpeechFields(input=PLACEHOLDER, model=self._program, voice=voice, response_format="pcm")
        self._prepared = await prepare(self._state, fields, [], "audio")
        await self._close_speaker()
        self._request_id = f"wyoming-{secrets.token_hex(12)}"
        options = SessionOptions(stream_audio=True)
        self._speaker = Speaker(self._state, None, self._prepared, options, self._request_id, self._pass_on)
        self._units = TextUnits(granularity, LONGEST_S)
        self._streamed, self._characters, self._count = streamed, 0, 0
        self._begun, self._samples = False, 0

    def _voice(self, asked: dict[str, str]) -> str:
        """Return the name of the voice that a request asks for; `default` if it asks for none. Raises ApiError."""
        name, language, speaker = (asked.get(part) for part in _VOICE)
        if speaker:
            raise invalid("voice: voices have no speakers here: leave out speaker", "speaker")
        known = languages(self._state)
        if language and language.lower().replace("_", "-").partition("-")[0] not in known:
            raise invalid(unknown("language", language, known), "language")
        return name or DEFAULT_VOICE

    def _add(self, text: str) -> None:
        if self._units is None:
            raise invalid("synthesize-chunk: send synthesize-start first", "type")
        self._characters += len(text)
        most = self._state.settings.max_long_characters
        if self._characters > most:
            raise _long_text(most)
        self._put(self._units.push(text))

    def _finish(self) -> None:
        """End the text: speak the rest of it."""
        if self._units is None or self._speaker is None:
            raise invalid("synthesize-stop: send synthesize-start first", "type")
        self._put(self._units.flush())
        self._speaker.put(Done(0, self._count))
        self._units = None

    def _put(self, units: list[str]) -> None:
        assert self._speaker is not None
        for text in units:
            self._speaker.put(Unit(text, 0, self._count))
            self._count += 1

    async def _close_speaker(self) -> None:
        if self._speaker is not None:
            await self._speaker.close()
        self._speaker = None

    # -- audio ---------------------------------------------------------------------------------------------------------

    async def _pass_on(self, message: dict[str, Any] | bytes) -> None:
        """Send what the speaker says as events. Raises ApiError if a unit has failed."""
        if isinstance(message, bytes):
            about = self._form() | {"timestamp": self._milliseconds()}
            self._samples += len(message) // (WIDTH * CHANNELS)
            await self._send(Event("audio-chunk", about, message))
        elif message["type"] == "audio.start":
            await self._begin(message["seed"])
        elif message["type"] == "error":
            kind, code = message["error_type"], message["code"]
            raise ApiError(500, message["message"], kind, message["param"], code)
        elif message["type"] == "session.done":
            # A text without a word: audio without samples.
            await self._begin(None)
            await self._send(Event("audio-stop", {"timestamp": self._milliseconds()}))
            if self._streamed:
                await self._send(Event("synthesize-stopped"))

    async def _begin(self, seed: int | None) -> None:
        """Send audio-start before the first audio. It holds the statement that the audio is synthetic."""
        if self._begun:
            return
        self._begun = True
        assert self._prepared is not None
        stated = None if seed is None else statement_for(self._state, self._prepared, seed, self._request_id)
        about = {} if stated is None else stated.to_dict()
        await self._send(Event("audio-start", self._form() | {"timestamp": 0} | about))

    def _form(self) -> dict[str, Any]:
        assert self._prepared is not None
        return {"rate": self._prepared.rate, "width": WIDTH, "channels": CHANNELS}

    def _milliseconds(self) -> int:
        assert self._prepared is not None
        return self._samples * 1000 // self._prepared.rate

    async def _send(self, event: Event) -> None:
        """Send an event. Raises _Gone if the client has left, or takes nothing for a while."""
        try:
            async with self._lock, asyncio.timeout(self._state.settings.slow_reader_s):
                self._writer.write(event.packed())
                await self._writer.drain()
        except (TimeoutError, OSError):
            self._writer.transport.abort()
            raise _Gone from None


def _wrong_voice() -> ApiError:
    return invalid("voice: send an object with a name, a language or none of them", "voice")


def _long_text(most: int) -> ApiError:
    return invalid(f"the text has more than {most} characters: send less", "text", "string_above_max_length")


def _reduced(event: Event) -> Event:
    """Return an event with only the strings that are used, so that the others take no memory while it waits. Raises ApiError."""
    voice = event.data.get("voice")
    voice = {} if voice is None else voice
    if not isinstance(voice, dict):
        raise _wrong_voice()
    parts = {part: voice[part] for part in _VOICE if voice.get(part) is not None}
    if not all(isinstance(part, str) for part in parts.values()):
        raise _wrong_voice()
    used = {name: event.data[name] for name in ("text", "text_format", "name") if event.data.get(name) is not None}
    for name, value in used.items():
        if not isinstance(value, str):
            raise invalid(f"{name} is not a string: send a string, or leave it out", name)
    return Event(event.type, {**used, "voice": parts})


def _characters(event: Event) -> int:
    """Return the characters of an event that `_reduced` made."""
    return sum(len(value) for value in [*event.data.values(), *event.data["voice"].values()] if isinstance(value, str))


def _text(data: dict[str, Any]) -> str:
    text = data.get("text")
    if not isinstance(text, str):
        raise invalid("text is missing: send the text to speak", "text")
    return text
