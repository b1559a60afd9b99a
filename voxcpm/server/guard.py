"""What every request passes first: request id, host and origin, key, size and time of its body."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse

from voxcpm.server.errors import ApiError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from voxcpm.server.access.keys import Key
    from voxcpm.server.state import ServerState

PUBLIC = ("/", "/health", "/ready", "/openapi.json", "/favicon.ico")
"""Paths that need no key."""
PUBLIC_FOLDER = "/page/"
"""The page's files need none either."""
ADMIN = ("/metrics",)
"""Paths that need a key with `admin`."""
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
PROTOCOL_KEY = "openai-insecure-api-key."
"""A browser's WebSocket has no headers: OpenAI's clients send the key as a subprotocol with this in front."""
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEY, _REQUEST_ID = "voxcpm.key", "voxcpm.request_id"


def key_of(connection: HTTPConnection) -> Key | None:
    """Return the key that a request came with; None if the server has no keys."""
    key: Key | None = connection.scope.get(_KEY)
    return key


def owner_of(connection: HTTPConnection) -> str:
    """Return the name of a request's key, empty without keys. Only an admin sees or cancels requests of another."""
    key = key_of(connection)
    return key.name if key is not None else ""


def request_id_of(connection: HTTPConnection) -> str:
    """Return the id of a request, which is in the header x-request-id of its answer."""
    found: str = connection.scope[_REQUEST_ID]
    return found


def is_admin(connection: HTTPConnection, state: ServerState) -> bool:
    """Return True if the request has an admin's key, or the server has no keys."""
    key = key_of(connection)
    return state.keys.path is None or (key is not None and key.admin)


def require_admin(connection: HTTPConnection, state: ServerState) -> None:
    """Raise ApiError (403) if the server has keys and the request's is not an admin's."""
    if not is_admin(connection, state):
        raise ApiError(403, "this needs a key with 'admin' in the keys file", "permission_error", code="admin_required")


class Guard:
    """ASGI middleware around the routes."""

    def __init__(self, app: ASGIApp, state: ServerState) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on if it may be answered."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asked = headers.get("x-request-id", "")
        scope[_REQUEST_ID] = asked if _ID.fullmatch(asked) else f"speech-{secrets.token_hex(12)}"
        try:
            self._check(scope, headers)
        except ApiError as error:
            await self._refuse(error, scope, receive, send)
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        counted = scope["method"] == "POST"
        self._state.answering += counted
        limited = _LimitedBody(receive, self._state.settings.max_body, self._state.settings.body_s)
        try:
            await self._app(scope, limited, _with_headers(send, scope[_REQUEST_ID]))
        finally:
            self._state.answering -= counted

    def _check(self, scope: Scope, headers: Headers) -> None:
        settings = self._state.settings
        if settings.loopback:
            _check_host(headers.get("host", ""), (*LOCAL_NAMES, settings.host, *settings.allow_host))
        if scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            _check_origin(headers.get("origin"), headers.get("host", ""), settings.cors)
        path: str = scope["path"]
        if path not in PUBLIC and not path.startswith(PUBLIC_FOLDER):
            scope[_KEY] = self._state.keys.find(_secret(headers))
        if path in ADMIN:
            require_admin(HTTPConnection(scope), self._state)
        if scope["type"] == "http":
            length = headers.get("content-length", "0")
            if not length.isdigit() or int(length) > settings.max_body:
                raise _too_large(settings.max_body)

    async def _refuse(self, error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": error.message[:120]})
            return
        response = error_response(error)
        response.headers["connection"] = "close"  # the body was not read
        await response(scope, receive, _with_headers(send, scope[_REQUEST_ID]))


def error_response(error: ApiError) -> JSONResponse:
    """Return the answer of an error."""
    headers: Mapping[str, str] = error.headers()
    if error.status == 401:
        headers = {**headers, "www-authenticate": "Bearer"}
    if error.status in (408, 413):
        # The rest of the body is not read.
        headers = {**headers, "connection": "close"}
    return JSONResponse(error.body(), error.status, headers)


def _with_headers(send: Send, request_id: str) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = request_id
            headers.setdefault("x-content-type-options", "nosniff")
        await send(message)

    return sending


def _secret(headers: Headers) -> str | None:
    kind, _, secret = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and secret:
        return secret.strip()
    for protocol in headers.get("sec-websocket-protocol", "").split(","):
        if protocol.strip().startswith(PROTOCOL_KEY):
            return protocol.strip().removeprefix(PROTOCOL_KEY)
    return None


def _name(host: str) -> str:
    """Return a Host header without the port and the brackets, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if host.count(":") == 1 else host.lower()


def _check_host(host: str, allowed: tuple[str, ...]) -> None:
    """Raise ApiError (403) if a page of another site made its name point to this machine (DNS rebinding)."""
    if _name(host) not in {name.lower() for name in allowed}:
        raise ApiError(403, "this server answers to localhost only: open it by that name, or start it with --allow-host NAME",
                       "permission_error", code="host_not_allowed")  # fmt: skip


def _check_origin(origin: str | None, host: str, cors: tuple[str, ...]) -> None:
    """Raise ApiError (403) if a page of another site sends the request."""
    if origin is None or origin in cors:
        return
    try:
        place = urlsplit(origin).netloc.lower()
    except ValueError:
        place = ""  # no browser sends such an origin
    if place != host.lower() or not host:
        raise ApiError(403, "pages of other sites may not use this server: start it with --cors ORIGIN", "permission_error",
                       code="origin_not_allowed")  # fmt: skip


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"the body is longer than {most / 2**20:g} MiB", code="body_too_large")


class _LimitedBody:
    """`receive` of a request whose body has a largest size and a longest time."""

    def __init__(self, receive: Receive, most: int, seconds: float) -> None:
        self._receive, self._left, self._most, self._seconds = receive, most, most, seconds
        self._until: float | None = None
        self._complete = False

    async def __call__(self) -> Any:
        if self._complete:
            return await self._receive()
        loop = asyncio.get_running_loop()
        if self._until is None:
            self._until = loop.time() + self._seconds
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(408, f"the body did not arrive within {self._seconds:g} s", code="body_timeout") from None
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise _too_large(self._most)
            self._complete = not message.get("more_body", False)
        return message
