"""Accept Wyoming connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING

from voxcpm.server.errors import busy
from voxcpm.server.wyoming.connection import Connection
from voxcpm.server.wyoming.events import MOST_LINE, Event

if TYPE_CHECKING:
    from voxcpm.server.state import ServerState

log = logging.getLogger("voxcpm.server")

MOST_CONNECTIONS = 32
"""Connections at once."""
LINGER_S = 1.0
"""Longest wait, in seconds, for a client to close its side too."""


class WyomingServer:
    """Serves the protocol on a socket that listens already."""

    def __init__(self, state: ServerState, listening: socket.socket) -> None:
        self._state, self._listening = state, listening
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self.host, self.port = listening.getsockname()[:2]

    async def start(self) -> None:
        """Accept connections."""
        self._server = await asyncio.start_server(self._connected, sock=self._listening, limit=MOST_LINE)

    async def stop(self) -> None:
        """Accept no more connections and end the open ones."""
        if self._server is not None:
            self._server.close()
        else:
            self._listening.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(self._open) >= MOST_CONNECTIONS:
                error = busy(f"the server has {len(self._open)} connections: try again later", 10.0)
                writer.write(Event("error", {"text": error.message, "code": error.code}).packed())
                return
            self._open.add(task)
            await Connection(self._state, reader, writer).run()
        except asyncio.CancelledError:
            pass  # The server stops.
        except Exception:
            log.exception("a Wyoming connection failed")
        finally:
            self._open.discard(task)
            await _close(reader, writer)


async def _close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close a connection so that the client can still read what was sent last."""
    with contextlib.suppress(TimeoutError, OSError, RuntimeError):
        async with asyncio.timeout(LINGER_S):
            writer.write_eof()
            # What is not read when a connection is closed resets it.
            while await reader.read(MOST_LINE):
                pass
    writer.transport.abort()
