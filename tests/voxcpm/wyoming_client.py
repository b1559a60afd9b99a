"""A server that speaks Wyoming around the scripted engine, and its client: the package `wyoming`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("msgspec", reason="the extra serve is not installed")
pytest.importorskip("lameenc", reason="the extra serve is not installed")
pytest.importorskip("wyoming", reason="the extra dev is not installed")

from fakes.scripted_link import ScriptedLink
from speech_service import WAIT_S
from wyoming.audio import AudioChunk
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.tts import SynthesizeVoice

from voxcpm.server.app import build_state
from voxcpm.server.run import _listen
from voxcpm.server.settings import ServerSettings
from voxcpm.server.state import ServerState
from voxcpm.server.wyoming import server

MODEL = SynthesizeVoice(name="default")
#: As Home Assistant sends it, with the package wyoming 1.10.2: the text in pieces, then the whole of it again.
RECORDED = (
    b'{"type": "synthesize-start", "version": "1.10.2", "data_length": 30}\n{"voice": {"name": "default"}}'
    b'{"type": "synthesize-chunk", "version": "1.10.2", "data_length": 25}\n{"text": "It is now sev"}'
    b'{"type": "synthesize-chunk", "version": "1.10.2", "data_length": 37}\n{"text": "en in the morning. The ki"}'
    b'{"type": "synthesize-chunk", "version": "1.10.2", "data_length": 30}\n{"text": "tchen light is on."}'
    b'{"type": "synthesize", "version": "1.10.2", "data_length": 98}\n'
    b'{"text": "It is now seven in the morning. The kitchen light is on.", "voice": {"name": "default"}}'
    b'{"type": "synthesize-stop", "version": "1.10.2"}\n'
)


class Spoken:
    """A server around the scripted engine, in this event loop."""

    def __init__(self, state: ServerState, link: ScriptedLink, port: int) -> None:
        self.state, self.link, self.port = state, link, port

    @asynccontextmanager
    async def client(self) -> AsyncIterator[AsyncTcpClient]:
        async with AsyncTcpClient("127.0.0.1", self.port, WAIT_S, WAIT_S) as client:
            yield client

    async def answer(self, *events: Any, until: str = "audio-stop") -> list[Event]:
        """Send events on a new connection; return those that come until one of this type, or the end."""
        async with self.client() as client:
            for event in events:
                await client.write_event(event if isinstance(event, Event) else event.event())
            return await heard(client, until)

    async def fault(self, *events: Any) -> Error:
        """Return the error that the events end in."""
        found = await self.answer(*events, until="error")
        return Error.from_event(found[-1])


async def heard(client: AsyncTcpClient, until: str) -> list[Event]:
    found = []
    while (event := await client.read_event()) is not None:
        found.append(event)
        if event.type == until:
            break
    return found


def audio(events: list[Event]) -> bytes:
    return b"".join(AudioChunk.from_event(event).audio for event in events if AudioChunk.is_type(event.type))


def serving(scenario: Callable[[Spoken], Awaitable[None]], **values: Any) -> None:
    """Run a scenario against a server around the scripted engine."""

    async def run() -> None:
        state = build_state(replace(ServerSettings("model", pcm_rate="native", no_watermark=True), **values))
        link = ScriptedLink()
        state.link = link
        state.references.cache._link = link  # type: ignore[union-attr]
        served = server.WyomingServer(state, _listen("127.0.0.1", 0))
        await served.start()
        try:
            await asyncio.wait_for(scenario(Spoken(state, link, served.port)), WAIT_S)
        finally:
            await served.stop()
            assert not state.running and state.answering == 0 and not link.channels

    asyncio.run(run())
