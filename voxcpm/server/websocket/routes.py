"""The route of sessions."""

from __future__ import annotations

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from voxcpm.server.errors import busy
from voxcpm.server.guard import key_of
from voxcpm.server.state import ServerState
from voxcpm.server.websocket import messages
from voxcpm.server.websocket.session import TRY_LATER, serve_session


def routes(state: ServerState) -> list[BaseRoute]:
    """Return the route of sessions."""

    open_now: dict[WebSocket, str | None] = {}  # and the name of its key

    async def stream(socket: WebSocket) -> None:
        """Serve a session."""
        key = key_of(socket)
        own = sum(name == key.name for name in open_now.values()) if key is not None else 0
        full = None
        if len(open_now) >= messages.MOST_SESSIONS:
            full = f"the server has {len(open_now)} sessions: try again later"
        elif key is not None and key.sessions is not None and own >= key.sessions:
            full = f"key {key.name} has {own} sessions, as many as it may have: close one"
        if full is not None:
            await socket.accept()
            error = busy(full, 10.0)
            await socket.send_json(messages.error_message(error, "close"))
            await socket.close(TRY_LATER)
            return
        open_now[socket] = key.name if key is not None else None
        try:
            await serve_session(state, socket)
        finally:
            del open_now[socket]

    return [WebSocketRoute("/v1/audio/speech/stream", stream)]
