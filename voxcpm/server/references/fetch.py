"""Fetch a clip from a host that the server's operator named: https only, and never from inside the network.

The name is resolved once, the addresses are checked, and the connection goes to the checked address. A second look-up, which
could answer something else (DNS rebinding), does not happen. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from voxcpm.errors import AudioError
from voxcpm.server.references.decode import MOST_BYTES

TIME_LIMIT_S = 5.0
_BLOCK = 65_536
_LONGEST_URL = 2_048
#: Ranges of IPv6 that carry an IPv4 address: what lies behind them is not checked, so that they are refused.
_MAPPED = tuple(
    ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")
)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Resolve = Callable[[str], Awaitable[Sequence[str]]]
Connect = Callable[[str, str], Awaitable[Streams]]


async def _resolve(host: str) -> list[str]:
    """Return the addresses of a host."""
    found = await asyncio.get_running_loop().getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


async def _connect(address: str, host: str) -> Streams:
    """Connect to an address; the certificate must be that of the host."""
    return await asyncio.open_connection(address, 443, ssl=ssl.create_default_context(), server_hostname=host)


@dataclass(frozen=True)
class Fetcher:
    """Fetches clips from the named hosts (lower case). Without hosts, every address is refused."""

    hosts: frozenset[str] = frozenset()
    resolve: Resolve = field(default=_resolve)
    connect: Connect = field(default=_connect)

    async def fetch(self, url: str) -> bytes:
        """Return the bytes behind an https address. Raises AudioError if the rules or the network forbid it."""
        host, target = self._check(url)
        try:
            async with asyncio.timeout(TIME_LIMIT_S):
                addresses = await self.resolve(host)
                if not addresses or any(is_inside(address) for address in addresses):
                    raise AudioError(f"{host} is not a public host: send the clip itself as a data: URL")
                reader, writer = await self.connect(addresses[0], host)
                try:
                    return await _get(reader, writer, host, target)
                finally:
                    writer.close()
                    with contextlib.suppress(OSError, ssl.SSLError):
                        await writer.wait_closed()
        except TimeoutError:
            raise AudioError(f"{host} took more than {TIME_LIMIT_S:g} s: send the clip itself as a data: URL") from None
        except (OSError, ssl.SSLError, UnicodeError):
            raise AudioError(f"{host} cannot be reached: send the clip itself as a data: URL") from None

    def _check(self, url: str) -> tuple[str, str]:
        """Return (host, request target) of an address. Raises AudioError if it is not allowed."""
        if not self.hosts:
            raise AudioError("this server fetches no addresses: send the clip itself as a data: URL")
        if len(url) > _LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
            raise AudioError(f"the reference's address must be at most {_LONGEST_URL} printable ASCII characters")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise AudioError("the reference's address is not a URL") from None
        host = (parts.hostname or "").rstrip(".")
        if (
            parts.scheme != "https"
            or port not in (None, 443)
            or parts.username is not None
            or parts.password is not None
        ):
            raise AudioError("the reference's address must be https, without a port, a user or a password")
        if host not in self.hosts:
            raise AudioError("the reference's host is not one that this server fetches from: send a data: URL")
        return host, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def is_inside(address: str) -> bool:
    """Return True if an address is not on the public internet: private, loopback, link-local, multicast, mapped, reserved."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return True
    if isinstance(found, ipaddress.IPv6Address) and (
        found.ipv4_mapped is not None or any(found in network for network in _MAPPED)
    ):
        return True
    return not found.is_global or found.is_multicast or found.is_reserved or found.is_unspecified


async def _get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, target: str) -> bytes:
    """Send one GET and return the body. Raises AudioError if the answer is not a clip of at most 10 MB."""
    import h11

    connection = h11.Connection(h11.CLIENT)
    headers = [
        ("Host", host),
        ("User-Agent", "voxmill"),
        ("Accept", "audio/*"),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    ]
    request = h11.Request(method="GET", target=target, headers=headers)
    writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    await writer.drain()
    body = bytearray()
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(_BLOCK))
            elif isinstance(event, h11.Response):
                _check_answer(event.status_code, {bytes(name): bytes(value) for name, value in event.headers}, host)
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MOST_BYTES:
                    raise AudioError(f"the clip of {host} is larger than {MOST_BYTES // 1_000_000} MB")
            elif isinstance(event, h11.EndOfMessage):
                return bytes(body)
            elif not isinstance(event, h11.InformationalResponse):
                raise AudioError(f"{host} ended the connection early: send the clip itself as a data: URL")
    except h11.RemoteProtocolError:
        raise AudioError(f"{host} does not answer with HTTP/1.1: send the clip itself as a data: URL") from None


def _check_answer(status: int, headers: dict[bytes, bytes], host: str) -> None:
    if 300 <= status < 400:
        raise AudioError(f"{host} redirects, which is not followed: give the final address")
    if status != 200:
        raise AudioError(f"{host} answers with status {status}: check the reference's address")
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if not (kind.startswith(b"audio/") or kind in (b"video/webm", b"application/octet-stream")):
        raise AudioError(f"{host} does not answer with audio: check the reference's address")
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > MOST_BYTES:
        raise AudioError(f"the clip of {host} is larger than {MOST_BYTES // 1_000_000} MB")
