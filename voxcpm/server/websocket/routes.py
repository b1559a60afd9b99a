"""The route of sessions."""

from __future__ import annotations

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from voxcpm.server.errors import busy
from voxcpm.server.state import ServerState
from voxcpm.server.websocket import messages
from voxcpm.server.websocket.session import TRY_LATER, serve_session


def routes(state: ServerState) -> list[BaseRoute]:
    """Return the route of sessions."""

    open_now: set[WebSocket] = set()

    async def stream(socket: WebSocket) -> None:
        """Serve a session."""
        if len(open_now) >= messages.MOST_SESSIONS:
            await socket.accept()
            error = busy(f"the server has {len(open_now)} sessions: try again later", 10.0)
            await socket.send_json(messages.error_message(error, "close"))
            await socket.close(TRY_LATER)
            return
        open_now.add(socket)
        try:
            await serve_session(state, socket)
        finally:
            open_now.discard(socket)

    return [WebSocketRoute("/v1/audio/speech/stream", stream)]
