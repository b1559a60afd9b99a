"""A client of a WebSocket session, and a server around the scripted engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("msgspec", reason="the extra serve is not installed")
pytest.importorskip("lameenc", reason="the extra serve is not installed")

from fakes.scripted_link import ScriptedLink
from starlette.testclient import TestClient, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from voxcpm.server import app as server
from voxcpm.server.settings import ServerSettings

PATH = "ws://localhost/v1/audio/speech/stream"
TEXT = "One two three four. Five six seven eight nine. Ten eleven twelve"


class Talk:
    """A client of one session."""

    def __init__(self, socket: WebSocketTestSession, link: ScriptedLink) -> None:
        self.socket, self.link = socket, link

    def say(self, kind: str, **values: Any) -> None:
        self.socket.send_text(json.dumps({"type": kind, **values}))

    def configure(self, **values: Any) -> dict[str, Any]:
        self.say("session.config", **{"split_granularity": "sentence", "stream_audio": True, "seed": 5, **values})
        return self.next()

    def next(self) -> dict[str, Any]:
        """The next message that is not audio."""
        return self.until()[0]

    def until(self, kind: str | None = None) -> tuple[dict[str, Any], bytes, list[dict[str, Any]]]:
        """(the next message of this type, the audio before it, the messages before it)."""
        audio = b""
        before: list[dict[str, Any]] = []
        while True:
            message = self.socket.receive()
            if message["type"] == "websocket.close":
                raise WebSocketDisconnect(message["code"])
            if message.get("bytes") is not None:
                audio += message["bytes"]
                continue
            found: dict[str, Any] = json.loads(message["text"])
            if kind in (None, found["type"]):
                return found, audio, before
            before.append(found)


@contextmanager
def served(**values: Any) -> Iterator[tuple[TestClient, ScriptedLink]]:
    """A server around the scripted engine."""
    state = server.build_state(replace(ServerSettings("model"), **values))
    link = ScriptedLink()
    state.link = link
    state.references.cache._link = link  # type: ignore[union-attr]
    with TestClient(server.make_app(state), base_url="http://localhost") as client:
        yield client, link


@contextmanager
def talking(**values: Any) -> Iterator[Talk]:
    with served(**values) as (client, link), client.websocket_connect(PATH) as socket:
        yield Talk(socket, link)
