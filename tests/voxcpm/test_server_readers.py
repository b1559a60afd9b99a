"""Clients that do not read what waits for them are cut on every path, and what they held is freed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
from collections.abc import AsyncGenerator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("lameenc", reason="the extra serve is not installed")

from speech_service import Service, until

from voxcpm.server.access.connections import LEAST, ReadInTime
from voxcpm.server.access.cuts import CUT
from voxcpm.server.speech.answers import StreamedAnswer


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service({"slow_reader_s": 0.5, "max_seconds": 4000.0}) as service:
        # The kernel takes little, so that small answers wait in the server too. Accepted sockets inherit this.
        service.server._listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        yield service


@contextlib.contextmanager
def reading_nothing(service: Service) -> Iterator[socket.socket]:
    """A connection that takes a few kilobytes at most."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", service.port))
        yield client


def post(path: str, **fields: Any) -> bytes:
    body = json.dumps(fields).encode()
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def freed(service: Service) -> bool:
    state = service.state
    waiting = state.running or state.answering or state.link.channels or state.link.load.running
    return not (service.server.server_state.connections or waiting)


@pytest.mark.parametrize(("seconds", "rate"), [("1", 40_000), ("100", 48_000)])
def test_a_whole_answer_that_is_not_read_is_dropped(service: Service, seconds: str, rate: int) -> None:
    until(lambda: freed(service))
    with reading_nothing(service) as client:
        fields = {"input": f"seconds {seconds}", "response_format": "wav", "sample_rate": rate, "stream": False}
        client.sendall(post("/v1/audio/speech", **fields))
        until(lambda: bool(service.server.server_state.connections))
        for one in list(service.server.server_state.connections):
            # Also a few kilobytes that wait start the time limit.
            assert one.transport.get_write_buffer_limits() == (0, 0)
        # uvicorn closes it after the keep-alive, which waits for the client; it is cut nevertheless.
        until(lambda: freed(service))


def test_an_answer_without_audio_that_is_not_read_is_dropped(service: Service) -> None:
    until(lambda: freed(service))
    with reading_nothing(service) as client:
        client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 30)
        until(lambda: bool(service.server.server_state.connections))
        until(lambda: freed(service))


def frame(**message: Any) -> bytes:
    """A message of a client as a WebSocket frame with a mask of zeros."""
    body = json.dumps(message).encode()
    assert len(body) < 126
    return bytes((0x81, 0x80 | len(body))) + bytes(4) + body


def test_a_session_that_is_not_read_is_dropped(service: Service) -> None:
    until(lambda: freed(service))
    with reading_nothing(service) as client:
        key = base64.b64encode(os.urandom(16)).decode()
        head = (
            "GET /v1/audio/speech/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        )
        client.sendall(f"{head}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        assert b" 101 " in client.recv(1024)
        client.sendall(frame(type="session.config", stream_audio=True))
        client.sendall(frame(type="input.text", text="seconds 3000") + frame(type="input.done"))
        until(lambda: len(service.state.running) == 1)
        until(lambda: freed(service))


class Clock:
    """A loop whose timers the test fires."""

    def __init__(self) -> None:
        self.timers: list[Any] = []

    def call_later(self, seconds: float, act: Any, *arguments: Any) -> Any:
        timer = SimpleNamespace(fire=lambda: act(*arguments), cancel=lambda: self.timers and self.timers.pop())
        self.timers.append(timer)
        return timer

    def fire(self) -> None:
        self.timers.pop().fire()


class Pipe:
    """A transport with bytes that wait."""

    def __init__(self) -> None:
        self.waiting, self.aborted = 3 * LEAST, False

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def abort(self) -> None:
        self.aborted = True


def watched() -> tuple[Any, Clock, Pipe]:
    protocol: Any = ReadInTime()
    protocol.loop, protocol.transport = Clock(), Pipe()
    protocol.pause_writing()
    return protocol, protocol.loop, protocol.transport


def test_a_reader_that_takes_enough_is_not_cut() -> None:
    protocol, clock, pipe = watched()
    for _ in range(2):
        pipe.waiting -= LEAST
        clock.fire()
        assert not pipe.aborted and len(clock.timers) == 1
    pipe.waiting = 0
    protocol.resume_writing()
    assert not clock.timers and not pipe.aborted and not protocol.was_slow


def test_a_reader_that_takes_too_little_is_cut() -> None:
    protocol, clock, pipe = watched()
    pipe.waiting -= LEAST - 1
    clock.fire()
    assert pipe.aborted and protocol.was_slow
    protocol.connection_lost(None)
    assert not clock.timers


def test_a_lost_connection_has_no_time_limit() -> None:
    protocol, clock, _ = watched()
    protocol.connection_lost(None)
    assert not clock.timers


def sent(parts: AsyncGenerator[tuple[bytes, float]]) -> tuple[list[bool], list[str | None]]:
    """Send an answer to a client that does not take its end. Return how it was cut, and what was counted."""

    async def send(message: Any) -> None:
        if not message.get("more_body", True):
            await asyncio.Event().wait()

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def close() -> None:
        pass

    cuts: list[bool] = []
    ended: list[str | None] = []
    metrics = SimpleNamespace(stream_ended=lambda reason, underrun_s: ended.append(reason))
    state: Any = SimpleNamespace(settings=SimpleNamespace(slow_reader_s=0.05), metrics=metrics)
    speech: Any = SimpleNamespace(aclose=close)
    answer = StreamedAnswer(state, speech, (b"first", 0.1), parts, "audio/wav", {})
    with contextlib.suppress(ZeroDivisionError):
        asyncio.run(answer({CUT: cuts.append, "type": "http"}, receive, send))
    return cuts, ended


async def nothing() -> AsyncGenerator[tuple[bytes, float]]:
    return
    yield


async def fault() -> AsyncGenerator[tuple[bytes, float]]:
    yield b"", 1 / 0


def test_a_stream_whose_end_is_not_taken_is_cut() -> None:
    assert sent(nothing()) == ([True], ["slow"])


def test_a_fault_in_a_stream_cuts_it() -> None:
    assert sent(fault()) == ([False], ["error"])
