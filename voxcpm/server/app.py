"""The ASGI application: routes of all parts around one state."""

from __future__ import annotations

from collections.abc import Callable

from starlette.routing import BaseRoute

from voxcpm.server.state import ServerState

ROUTES: list[Callable[[ServerState], list[BaseRoute]]] = []
"""One function per part of the server; their routes are tried in this order."""
