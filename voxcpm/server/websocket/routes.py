"""The route of sessions."""

from __future__ import annotations

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from voxcpm.server.state import ServerState
from voxcpm.server.websocket.session import serve_session


def routes(state: ServerState) -> list[BaseRoute]:
    """Return the route of sessions."""

    async def stream(socket: WebSocket) -> None:
        await serve_session(state, socket)

    return [WebSocketRoute("/v1/audio/speech/stream", stream)]
