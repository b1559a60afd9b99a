"""uvicorn's connections with our limits: headers that do not come, clients that do not read, and answers that are cut."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

from voxcpm.server.access.cuts import CUT, SLOW

LEAST = 64 * 1024
"""Bytes that a client must take in `slow_s`, or all that wait for it if they are fewer."""


class ReadInTime(asyncio.Protocol):
    """A protocol whose transport is aborted if the client does not read, also after `transport.close()`.

    The transport must pause the protocol as soon as bytes wait (`set_write_buffer_limits(0)`) and resume it when none do.
    Close waits for these bytes without an end, and the application may have finished long ago, as it has after whole answers.
    """

    slow_s = 60.0
    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    was_slow = False  #: it was aborted because the client did not read
    _slow_timer: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Start the time limit: bytes wait for the client."""
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        """End the time limit: the client took everything."""
        self.stop_waiting()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the time limit."""
        self.stop_waiting()
        super().connection_lost(exc)

    def stop_waiting(self) -> None:
        """End the time limit."""
        if self._slow_timer is not None:
            self._slow_timer.cancel()
            self._slow_timer = None

    def _wait_for_reader(self) -> None:
        self.stop_waiting()
        self._slow_timer = self.loop.call_later(self.slow_s, self._judge, self.transport.get_write_buffer_size())

    def _judge(self, before: int) -> None:
        """Abort, unless the client took enough of the bytes that waited before. A large answer may take several rounds."""
        if self.transport.get_write_buffer_size() <= before - LEAST:
            self._wait_for_reader()
            return
        self.was_slow = True
        self.transport.abort()


class HttpConnection(ReadInTime, H11Protocol):
    """An HTTP connection, with a time limit for headers, and an end that clients can tell from a complete answer."""

    header_s = 10.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        inner = self.app

        async def with_cut(scope: Any, receive: Any, send: Any) -> None:
            scope[CUT], scope[SLOW] = self.cut, lambda: self.was_slow
            await inner(scope, receive, send)

        self.app = with_cut
        self._header_timer: asyncio.TimerHandle | None = None
        self._upgraded = False  #: to a WebSocket, which has another protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit of the first headers."""
        transport.set_write_buffer_limits(0)
        super().connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        """Start the time limit when a further request begins, and end it when its headers are complete."""
        super().data_received(data)
        if self._upgraded or (self.cycle is not None and not self.cycle.response_complete):
            self._headers_came()
        elif self._header_timer is None:
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the time limits."""
        self._headers_came()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Pass the connection on."""
        self._upgraded = True
        super().handle_websocket_upgrade(event)
        self.stop_waiting()
        follower = self.transport.get_protocol()
        # The transport does not say again that bytes of an earlier answer wait.
        if self.transport.get_write_buffer_size() and isinstance(follower, ReadInTime):
            follower.pause_writing()

    def _expect_headers(self) -> None:
        if not self.transport.is_closing():
            self._header_timer = self.loop.call_later(self.header_s, self.transport.abort)

    def _headers_came(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def cut(self, now: bool) -> None:
        """End the connection in the middle of an answer, so that the client does not take it for complete.

        now: drop what was not sent yet, for a client that does not read. An answer of HTTP/1.0 has no chunks, and the end of
        the connection is its usual end: the client gets a reset instead, and loses what it has not read.
        """
        if self.scope is not None and self.scope["http_version"] == "1.0":
            raw = self.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            now = True
        if now:
            self.transport.abort()
        else:
            self.transport.close()


class SocketConnection(ReadInTime, AutoWebSocketsProtocol):  # type: ignore[misc, valid-type]
    """A WebSocket."""
