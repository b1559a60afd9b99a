"""Who may ask: requests of the page itself, from a browser that was given the token. All others are refused before they are read.

* **Host**: a web page elsewhere can let its own name point to this machine (DNS rebinding). Only the names of this server are
  answered.
* **Origin**: requests of other pages name theirs.
* **Token**: once in the address, then in a cookie that other pages cannot send (SameSite=Strict). Requests for data also have a
  header, which a page elsewhere cannot set without being asked first.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADER = b"x-voxmill"
"""Requests for data have this header, with any value."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LONGEST = 1 << 16


class Guard:
    """ASGI middleware. names: host names that are answered beside those of the loopback interface; None: every IP address, too."""

    def __init__(self, app: App, token: str, names: tuple[str, ...] | None = ()) -> None:
        self._app, self._token = app, token
        self._cookie = f"voxmill-{secrets.token_hex(4)}"  # Cookies are not separated by port.
        self._names, self._any_address = (*LOOPBACK, *(names or ())), names is None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        nonce = secrets.token_urlsafe(12)
        scope["nonce"] = nonce

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_headers(nonce), *self._set_cookie(scope)]
            await send(message)

        await self._app(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = list(scope["headers"])
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        if len(hosts) != 1 or not self._is_ours(hosts[0], scope):
            return 421, "this server answers only to its own name: open the address that voxmill browse printed"
        origins = [value.decode("latin-1") for name, value in headers if name == b"origin"]
        if origins and origins != [f"{scope.get('scheme', 'http')}://{hosts[0]}"]:
            return 403, "requests of other pages are refused"
        if len(scope.get("query_string", b"")) + len(scope.get("raw_path") or b"") > _LONGEST:
            return 414, "the address is too long"
        if not (self._in_address(scope) or self._in_cookie(headers)):
            return 401, "the token is missing: open the address that voxmill browse printed"
        is_data = scope["path"].startswith("/api/") and not scope["path"].endswith("/audio")
        if is_data and not any(name == HEADER for name, _ in headers):
            return 403, "requests for data need the header X-Voxmill"
        return None

    def _is_ours(self, host: str, scope: Scope) -> bool:
        name, port = _split(host)
        server = scope.get("server")
        if server is None or port != str(server[1]):
            return False
        return name.lower() in self._names or (self._any_address and _is_address(name))

    def _in_address(self, scope: Scope) -> bool:
        if scope["path"] != "/" or scope["method"] != "GET":
            return False
        try:
            given = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=10).get("token", [""])
        except ValueError:
            return False
        return self._is_token(given[0])

    def _in_cookie(self, headers: list[tuple[bytes, bytes]]) -> bool:
        for name, value in headers:
            if name == b"cookie":
                try:
                    found = SimpleCookie(value.decode("latin-1")).get(self._cookie)
                except CookieError:
                    continue
                if found is not None and self._is_token(found.value):
                    return True
        return False

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode("utf-8", "replace"), self._token.encode())

    def _set_cookie(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        if not self._in_address(scope):
            return []
        return [(b"set-cookie", f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/".encode())]


def _split(host: str) -> tuple[str, str]:
    """Return (name, port) of a Host header; the port of HTTP if it has none."""
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        return name, rest[1:] if rest.startswith(":") else "80"
    name, colon, port = host.partition(":")
    return name, port if colon else "80"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _headers(nonce: str) -> list[tuple[bytes, bytes]]:
    policy = (
        "default-src 'none'; script-src 'self'; connect-src 'self'; media-src 'self' blob:; img-src 'self' data:; "
        f"style-src 'self' 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return [
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cache-control", b"no-store"),
    ]


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
