"""Run the server: uvicorn with our limits on connections, and an end that lets running requests finish."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from voxcpm.server.access.connections import HttpConnection, SocketConnection
from voxcpm.server.app import build_state, make_app
from voxcpm.server.errors import unavailable
from voxcpm.server.settings import ALIASES, ServerSettings
from voxcpm.server.state import ServerState
from voxcpm.server.wyoming.server import WyomingServer
from voxcpm.watermark.registry import remember

log = logging.getLogger("voxcpm.server")

KEEP_ALIVE_S = 5
CLOSING_S = 5
"""Longest wait for connections to close after the last request."""


def serve(settings: ServerSettings, ready: Callable[[str], None] | None = None) -> None:
    """Serve a checkpoint until SIGTERM or Ctrl-C. ready: called with the URL once the model is loaded.

    Raises ValueError, FileNotFoundError and OSError if it cannot start, and RuntimeError if the model cannot be loaded.
    """
    logging.basicConfig(format="voxmill: %(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("voxcpm.server").setLevel(logging.INFO)
    # A stream that is cut on purpose is not an error of the application.
    logging.getLogger("uvicorn.error").addFilter(lambda record: "without completing" not in record.getMessage())
    server = SpeechServer(build_state(settings), ready)
    server.run()
    if server.failure is not None:
        raise RuntimeError(server.failure)


def _listen(host: str, port: int, options: str = "--host or --port") -> socket.socket:
    """Return a listening socket. Raises OSError, which says what to do, if the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise OSError(f"cannot listen at {host} port {port} ({error.strerror}): choose another {options}") from None
    listening.setblocking(False)
    return listening


class SpeechServer(uvicorn.Server):
    """Ends in two steps: the first signal lets requests finish, the second one does not."""

    def __init__(self, state: ServerState, ready: Callable[[str], None] | None = None) -> None:
        """Listen, so that the address is known. ready: as for `serve`. Raises OSError if the address cannot be used."""
        limits = state.settings

        class Http(HttpConnection):
            header_s, slow_s = limits.header_s, limits.slow_reader_s

        class Socket(SocketConnection):
            slow_s = limits.slow_reader_s

        super().__init__(
            uvicorn.Config(
                make_app(state),
                http=Http,
                ws=Socket,
                lifespan="on",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=CLOSING_S,
                ws_max_size=limits.max_body,  # of session.config, which may carry a clip
                ws_ping_interval=20.0,
                ws_ping_timeout=20.0,
            )
        )
        self._listening = _listen(limits.host, limits.port)
        host, self.port = self._listening.getsockname()[:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        self.wyoming: WyomingServer | None = None
        if (address := limits.wyoming_address) is not None:
            self.wyoming = WyomingServer(state, _listen(*address, "--wyoming"))
        self.failure: str | None = None
        self.loop: asyncio.AbstractEventLoop | None = None  #: set when it serves
        self._state, self._ready = state, ready
        self._until: float | None = None
        self._watch: asyncio.Task[None] | None = None

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal."""
        super().run(sockets or [self._listening])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then wait for the model beside it."""
        await super().startup(sockets)
        self.loop = asyncio.get_running_loop()
        self._watch = asyncio.create_task(self._wait_ready())
        if self.wyoming is not None:
            await self.wyoming.start()
            log.info("Wyoming at tcp://%s:%d", self.wyoming.host, self.wyoming.port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the connections, and end the engine process."""
        if self.wyoming is not None:
            await self.wyoming.stop()
        await super().shutdown(sockets)

    async def _wait_ready(self) -> None:
        link = self._state.link
        await link.wait_ready()
        if link.status == "failed" and not link.loaded:
            self.failure = link.failure
            self.should_exit = True
            return
        if self._state.watermark_keys:
            for name, adapter in self._state.models.items():
                if name not in ALIASES:
                    remember(link.about.digest_with(adapter), name)
        if self._ready is not None:
            self._ready(self.url)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal: drain at the first one, end at once at the second."""
        if not self._state.draining:
            self._state.draining = True
            self._until = time.monotonic() + self._state.settings.drain
            return
        self._state.link.abandon()
        self.force_exit = self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """End when the last request has ended, or the time for it is over."""
        if self._until is not None and not self.should_exit:
            late = time.monotonic() >= self._until
            if late:
                for speech in list(self._state.running):
                    speech.interrupt(unavailable("the server was stopped before the audio was complete"))
            if late or not self._state.busy:
                self.should_exit = True
        return await super().on_tick(counter)
